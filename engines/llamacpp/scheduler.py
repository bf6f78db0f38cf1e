"""Which tokens run in the next step: the whole scheduling policy, without model, thread or clock.

Decode goes first, one token of every running sequence; then prefill of admitted prompts within a
budget; then admission, oldest first. When cells run short, cached prefixes go first (least recently
used), then the youngest running sequence is preempted: it gives up its cells and is computed again
later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from engines.llamacpp.kv_cache import KvCache
from engines.llamacpp.sequence import NO_SLOT, Sequence

# Waiting for another prompt's prefill pays off only if it saves about a step of it.
WORTH_WAITING_FOR = 32
# Room a running sequence is left to grow in, at most, before a new one is admitted. Too little means
# preemption, which computes a whole sequence again; too much leaves cells idle.
GROWTH_RESERVE = 64


@dataclass(slots=True)
class Work:
    """``count`` pending tokens of ``sequence`` to compute in this step."""

    sequence: Sequence
    count: int

    @property
    def completes(self) -> bool:
        """Whether the step leaves no token pending, so that the next one can be drawn."""
        return self.count == self.sequence.pending


@dataclass(slots=True)
class CachedPrefix:
    """Tokens that a finished sequence left in the KV cache."""

    slot: int
    tokens: list[int]


class Scheduler:
    """Owns the waiting and running sequences and the prefix cache."""

    def __init__(
        self,
        kv: KvCache,
        *,
        max_running: int,
        batch_size: int,
        cache_prefixes: bool,
        idle_cell_budget: int = 2**31,
    ) -> None:
        """``idle_cell_budget`` bounds running sequences times cells that only the prefix cache holds.

        Attention looks at the mask of every used cell for every running sequence, so idle cells are not
        free: few sequences may keep many of them, many may keep few.
        """
        self.kv = kv
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.preemptions = 0
        self._cached: dict[int, CachedPrefix] = {}  # by slot, least recently used first
        self._max_running = max_running
        self._batch_size = batch_size
        self._cache_prefixes = cache_prefixes
        self._idle_cell_budget = idle_cell_budget
        self._arrivals = 0

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting)

    @property
    def decoding(self) -> int:
        return sum(not s.is_prefilling for s in self.running)

    @property
    def prefilling(self) -> int:
        """Prompts that are being prefilled or wait for it."""
        return len(self.running) + len(self.waiting) - self.decoding

    @property
    def cells_in_use(self) -> int:
        """Cells that running sequences hold; what only the prefix cache holds can be had at once."""
        return self.kv.distinct(s.slot for s in self.running)

    def submit(self, sequence: Sequence) -> None:
        self._arrivals += 1
        sequence.arrival = self._arrivals
        if sequence.has_begun:
            # Somebody reads it already: it goes before all that have not begun.
            begun = sum(each.has_begun for each in self.waiting)
            self.waiting.insert(begun, sequence)
        else:
            self.waiting.append(sequence)

    def abort(self, sequence: Sequence) -> None:
        """Forget a sequence, wherever it is; what it computed stays as a cached prefix."""
        if sequence in self.running:
            self.finish(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def finish(self, sequence: Sequence) -> None:
        """Take a running sequence out and keep its prefix, if prefixes are kept."""
        self.running.remove(sequence)
        slot, sequence.slot = sequence.slot, NO_SLOT
        if self._cache_prefixes and sequence.computed:
            self._keep(CachedPrefix(slot, sequence.tokens[: sequence.computed]))
            self._trim_cache()
        else:
            self.kv.release(slot)

    def discard(self, sequence: Sequence) -> None:
        """Take a running sequence out and drop its cells: they may hold anything."""
        self.running.remove(sequence)
        slot, sequence.slot = sequence.slot, NO_SLOT
        self.kv.release(slot)

    def schedule(self, prefill_budget: int) -> list[Work]:
        """The next step's work; empty only if nothing runs and nothing waits."""
        work = self._schedule_decode()
        budget = min(prefill_budget, self._batch_size - len(work))
        budget -= self._schedule_prefill(work, budget)
        self._admit(work, budget)
        if not work and self.running:
            # Every running prompt lacks cells and none decodes: the youngest makes room.
            self._preempt(self._youngest())
            return self.schedule(prefill_budget)
        # llama.cpp puts slots of a split cache into one forward pass only if they come in order.
        return sorted(work, key=lambda w: w.sequence.slot)

    def commit(self, work: Work) -> None:
        """Note that ``work`` was computed."""
        self.kv.grow(work.sequence.slot, work.count)
        work.sequence.computed += work.count

    def relieve(self) -> bool:
        """Make all the room there is without failing anyone; False if the only sequence left needs more."""
        for slot in list(self._cached):
            self._evict(slot)
        if len(self.running) < 2:
            return False
        self._preempt(self._youngest())
        return True

    def _schedule_decode(self) -> list[Work]:
        while True:
            decoding = [s for s in self.running if not s.is_prefilling]
            if self._make_room(len(decoding)):
                return [Work(s, 1) for s in decoding]
            self._preempt(self._youngest())

    def _schedule_prefill(self, work: list[Work], budget: int) -> int:
        """Continue running prompts, oldest first; returns the tokens scheduled."""
        spent = 0
        for sequence in self.running:
            if sequence.is_prefilling and spent < budget:
                spent += self._add_prefill(work, sequence, budget - spent)
        return spent

    def _add_prefill(self, work: list[Work], sequence: Sequence, budget: int) -> int:
        planned = sum(w.count for w in work)
        wanted = min(sequence.pending, budget)
        self._make_room(planned + wanted)
        count = min(wanted, self.kv.free_cells - planned)
        if count <= 0:
            return 0
        work.append(Work(sequence, count))
        return count

    def _admit(self, work: list[Work], budget: int) -> None:
        for sequence in list(self.waiting):
            if budget <= 0 or len(self.running) >= self._max_running:
                return
            if self._still_waits(sequence):
                continue
            source, shared = self._longest_prefix(sequence)
            if self._should_wait(sequence, shared):
                continue
            if not self._can_admit(work, sequence, shared):
                return
            self.waiting.remove(sequence)
            self._start(sequence, source, shared)
            budget -= self._add_prefill(work, sequence, budget)

    def _start(self, sequence: Sequence, source: int, shared: int) -> None:
        place = self.kv.place([s.slot for s in self.running], list(self._cached), source, shared)
        sequence.slot = place.slot
        if place.adopt:
            del self._cached[source]
            self.kv.shrink(source, shared)
        else:
            if place.slot in self._cached:
                self._evict(place.slot)
            self.kv.open(place.slot)
            if shared:
                self.kv.share(source, place.slot, shared)
            if source in self._cached:
                self._cached[source] = self._cached.pop(source)  # used just now
        sequence.computed = shared
        if sequence.cached is None:
            sequence.cached = min(shared, len(sequence.request.prompt.token_ids))
        self.running.append(sequence)
        self._trim_cache()

    def _can_admit(self, work: list[Work], sequence: Sequence, shared: int) -> bool:
        """Whether the whole prompt fits beside what the running ones still need."""
        if not self.running:
            return True
        promised = sum(s.pending + min(s.to_generate, GROWTH_RESERVE) for s in self.running)
        return self.kv.cells - self.cells_in_use >= promised + len(sequence.tokens) - shared

    def _longest_prefix(self, sequence: Sequence) -> tuple[int, int]:
        """Slot and length of the longest computed prefix of ``sequence`` that some slot holds.

        The last token is never shared: its logits are needed.
        """
        best, slot = 0, NO_SLOT
        if not self._cache_prefixes:
            return slot, best
        limit = len(sequence.tokens) - 1
        for other_slot, tokens, computed in self._holders():
            length = min(common_length(sequence.tokens, tokens), computed, limit)
            if length > best:
                best, slot = length, other_slot
        return slot, best

    def _holders(self) -> Iterator[tuple[int, list[int], int]]:
        for entry in self._cached.values():
            yield entry.slot, entry.tokens, len(entry.tokens)
        for running in self.running:
            yield running.slot, running.tokens, running.computed

    def _should_wait(self, sequence: Sequence, shared: int) -> bool:
        """Whether a running prefill is about to compute much more of this prompt than is there now."""
        if not self._cache_prefixes:
            return False
        limit = len(sequence.tokens) - 1
        for other in self.running:
            if not other.is_prefilling:
                continue
            length = min(common_length(sequence.tokens, other.tokens), limit)
            if length - max(shared, other.computed) >= WORTH_WAITING_FOR:
                sequence.waits_for = (other, length)
                return True
        return False

    @staticmethod
    def _still_waits(sequence: Sequence) -> bool:
        if sequence.waits_for is None:
            return False
        other, length = sequence.waits_for
        if other.slot != NO_SLOT and other.computed < length:
            return True
        sequence.waits_for = None
        return False

    def _keep(self, entry: CachedPrefix) -> None:
        """Cache ``entry``; entries that are prefixes of it say nothing more and go."""
        for slot, old in list(self._cached.items()):
            if len(old.tokens) <= len(entry.tokens) and entry.tokens[: len(old.tokens)] == old.tokens:
                self._evict(slot)
        self._cached[entry.slot] = entry

    def _trim_cache(self) -> None:
        """Evict until idle cells cost the running sequences no more than allowed."""
        limit = self._idle_cell_budget // max(1, len(self.running))
        idle = self.kv.cells - self.kv.free_cells - self.cells_in_use
        for slot in list(self._cached):
            if idle <= limit:
                return
            before = self.kv.free_cells
            self._evict(slot)
            idle -= self.kv.free_cells - before

    def _evict(self, slot: int) -> None:
        del self._cached[slot]
        self.kv.release(slot)

    def _make_room(self, cells: int) -> bool:
        """Evict cached prefixes until ``cells`` are free; False if that is not enough."""
        while self.kv.free_cells < cells:
            slot = next(iter(self._cached), None)
            if slot is None:
                return False
            self._evict(slot)
        return True

    def _youngest(self) -> Sequence:
        return max(self.running, key=lambda s: s.arrival)

    def _preempt(self, sequence: Sequence) -> None:
        self.discard(sequence)
        sequence.computed = 0
        sequence.waits_for = None
        self.waiting.appendleft(sequence)
        self.preemptions += 1


def common_length(a: list[int], b: list[int]) -> int:
    """Length of the longest common prefix, by bisection over slice comparisons (they run in C)."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
