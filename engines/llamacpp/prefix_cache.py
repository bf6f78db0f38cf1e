"""The prefix cache: tokens that finished sequences left in KV slots, for prompts that begin alike."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from engines.llamacpp.kv_cache import KvCache
from engines.llamacpp.sequence import NO_SLOT, LlamaSequence

# Waiting for another prompt's prefill pays off only if it saves about a step of it.
WORTH_WAITING_FOR = 32


class SharedPrefix(NamedTuple):
    """The first ``length`` tokens that KV slot ``slot`` holds."""

    slot: int = NO_SLOT
    length: int = 0


class LlamaPrefixCache:
    """Cached prefixes by KV slot, least recently used first. Running sequences share theirs as well.

    A slot is free, or caches a prefix, or a sequence runs in it: the cache hands out the first two kinds.
    """

    def __init__(self, kv: KvCache, *, enabled: bool = True, idle_cell_budget: int = 2**31) -> None:
        """``idle_cell_budget`` bounds running sequences times cells that only the prefix cache holds.

        Attention looks at the mask of every used cell for every running sequence, so idle cells are not
        free: few sequences may keep many of them, many may keep few. Nothing is shared unless ``enabled``.
        """
        self._kv = kv
        self._enabled = enabled
        self._idle_cell_budget = idle_cell_budget
        self._cached: dict[int, list[int]] = {}

    def longest(self, sequence: LlamaSequence, running: Iterable[LlamaSequence]) -> SharedPrefix:
        """The longest computed prefix of ``sequence`` that some slot holds.

        The last token is never shared: its logits are needed.
        """
        best = SharedPrefix()
        if not self._enabled:
            return best
        limit = len(sequence.tokens) - 1
        for slot, tokens, computed in self._holders(running):
            length = min(common_length(sequence.tokens, tokens), computed, limit)
            if length > best.length:
                best = SharedPrefix(slot, length)
        return best

    def worth_waiting_for(
        self, sequence: LlamaSequence, prefix: SharedPrefix, running: Iterable[LlamaSequence]
    ) -> tuple[LlamaSequence, int] | None:
        """The running sequence that is about to prefill much more of ``sequence`` than ``prefix`` has, and
        how many tokens of it; None if there is none."""
        if not self._enabled:
            return None
        limit = len(sequence.tokens) - 1
        for other in running:
            if not other.is_prefilling:
                continue
            length = min(common_length(sequence.tokens, other.tokens), limit)
            if length - max(prefix.length, other.computed) >= WORTH_WAITING_FOR:
                return other, length
        return None

    def open(self, prefix: SharedPrefix, busy: Collection[int]) -> int:
        """Take a slot and let it begin with ``prefix``; sequences run in the ``busy`` slots."""
        source, shared = prefix
        place = self._kv.place(busy, list(self._cached), source, shared)
        if place.adopt:
            del self._cached[source]
            self._kv.shrink(source, shared)
            return source
        if place.slot in self._cached:
            self.evict(place.slot)
        self._kv.open(place.slot)
        if shared:
            self._kv.share(source, place.slot, shared)
        if source in self._cached:
            self._cached[source] = self._cached.pop(source)  # used just now
        return place.slot

    def keep(self, slot: int, tokens: list[int]) -> None:
        """Cache the ``tokens`` that a finished sequence left in ``slot``; cached prefixes of them say nothing
        more and go."""
        if not self._enabled or not tokens:
            self._kv.release(slot)
            return
        for old_slot, old in list(self._cached.items()):
            if len(old) <= len(tokens) and tokens[: len(old)] == old:
                self.evict(old_slot)
        self._cached[slot] = tokens

    def trim(self, busy: Collection[int]) -> None:
        """Evict until idle cells cost the sequences that run in the ``busy`` slots no more than allowed."""
        limit = self._idle_cell_budget // max(1, len(busy))
        idle = self._kv.cells - self._kv.free_cells - self._kv.distinct(busy)
        for slot in list(self._cached):
            if idle <= limit:
                return
            before = self._kv.free_cells
            self.evict(slot)
            idle -= self._kv.free_cells - before

    def make_room(self, cells: int) -> None:
        """Evict until ``cells`` are free, or nothing is cached any more."""
        while self._cached and self._kv.free_cells < cells:
            self.evict(next(iter(self._cached)))

    def evict(self, slot: int) -> None:
        """Drop the prefix in ``slot``."""
        del self._cached[slot]
        self._kv.release(slot)

    def clear(self) -> None:
        """Drop every prefix."""
        for slot in list(self._cached):
            self.evict(slot)

    def _holders(self, running: Iterable[LlamaSequence]) -> Iterator[tuple[int, list[int], int]]:
        """Slots, their tokens, and how many of these are computed."""
        cached = ((slot, tokens, len(tokens)) for slot, tokens in self._cached.items())
        return chain(cached, ((s.slot, s.tokens, s.computed) for s in running))


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
