"""The order in which sequences are admitted to a batch: one rule for every scheduler."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

from engines.batching.sequence import Sequence

S = TypeVar("S", bound=Sequence)


class WaitingQueue(Generic[S]):
    """Sequences that wait for a place in the batch.

    The oldest comes first, with two exceptions: an answer that goes on from another backend is being read
    already and goes before all that have no output yet, and a preempted sequence goes back to the front.
    """

    def __init__(self) -> None:
        self._sequences: deque[S] = deque()

    def __len__(self) -> int:
        return len(self._sequences)

    def __iter__(self) -> Iterator[S]:
        return iter(self._sequences)

    @property
    def first(self) -> S:
        """The next to be admitted. Raises `IndexError` if none waits."""
        return self._sequences[0]

    def add(self, sequence: S) -> None:
        """Queue a sequence that is new here."""
        if not sequence.has_output:
            self._sequences.append(sequence)
            return
        read = [place for place, other in enumerate(self._sequences) if other.has_output]
        self._sequences.insert(read[-1] + 1 if read else 0, sequence)

    def put_back(self, sequence: S) -> None:
        """Queue a preempted sequence, before all others."""
        self._sequences.appendleft(sequence)

    def remove(self, sequence: S) -> None:
        """Take ``sequence`` out. Raises `ValueError` if it does not wait."""
        self._sequences.remove(sequence)
