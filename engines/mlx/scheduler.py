"""Scheduler: the sequences of the batch, admitted by bytes, without model, thread or clock.

A batch is a rectangle, as every sequence is padded to the longest, so one long prompt makes all of them
dearer. The first in the queue is admitted next; none overtakes it, so none starves. When the batch outgrows
the budget, the sequence that was admitted last is preempted: it leaves the batch and is admitted again later.
"""

from __future__ import annotations

from collections.abc import Iterable

from engines.batching.waiting import WaitingQueue
from engines.mlx.memory import KvCost
from engines.mlx.sequence import MlxSequence

# Tokens that a sequence is left to grow by before it is admitted. Too few mean preemption, which costs
# a prefill; too many leave memory idle.
GROWTH_RESERVE = 256


class MlxScheduler:
    """The waiting and the running sequences. ``budget`` in bytes."""

    def __init__(self, cost: KvCost, *, budget: int, max_running: int) -> None:
        self.waiting: WaitingQueue[MlxSequence] = WaitingQueue()
        self.running: list[MlxSequence] = []  # in the order of their admission
        self.preemptions = 0
        self._cost = cost
        self._budget = budget
        self._max_running = max_running

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting)

    @property
    def tokens_in_use(self) -> int:
        return sum(len(sequence.tokens) for sequence in self.running)

    @property
    def prefilling(self) -> int:
        return sum(sequence.is_prefilling for sequence in self.running)

    @property
    def spare_bytes(self) -> int:
        """The bytes of the budget that the batch leaves to cached prefixes."""
        return max(0, self._budget - self.used_bytes)

    @property
    def used_bytes(self) -> int:
        """The bytes that the batch takes."""
        return self._bytes(len(s.tokens) for s in self.running)

    def submit(self, sequence: MlxSequence) -> None:
        self.waiting.add(sequence)

    def admit(self) -> list[MlxSequence]:
        """Move waiting sequences that fit into the batch, in their order. One alone always fits."""
        admitted = []
        while self.waiting and self._fits(self.waiting.first):
            sequence = self.waiting.first
            self.waiting.remove(sequence)
            self.running.append(sequence)
            admitted.append(sequence)
        return admitted

    def preempt(self) -> list[MlxSequence]:
        """Move sequences back to the queue, the last one admitted first, until the batch fits the budget."""
        preempted = []
        while len(self.running) > 1 and self.used_bytes > self._budget:
            sequence = self.running.pop()
            sequence.is_prefilling = True
            self.waiting.put_back(sequence)
            self.preemptions += 1
            preempted.append(sequence)
        return preempted

    def remove(self, sequence: MlxSequence) -> None:
        """Forget a sequence, wherever it is."""
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def _fits(self, sequence: MlxSequence) -> bool:
        if not self.running:
            return True
        if len(self.running) >= self._max_running:
            return False
        return self._bytes(_planned(s) for s in [*self.running, sequence]) <= self._budget

    def _bytes(self, lengths: Iterable[int]) -> int:
        lengths = list(lengths)
        return self._cost.batch(len(lengths), max(lengths)) if lengths else 0


def _planned(sequence: MlxSequence) -> int:
    """How long a sequence may soon be, in tokens."""
    return len(sequence.tokens) + min(sequence.to_generate, GROWTH_RESERVE)
