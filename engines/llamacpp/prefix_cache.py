"""The prefix cache: tokens that finished sequences left in KV slots, for prompts that begin alike."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from engines.llamacpp.adapters import LlamaAdapter
from engines.llamacpp.kv_cache import KvCache
from engines.llamacpp.sequence import NO_SLOT, LlamaSequence
from engines.llamacpp.stash import Stash, Stashed

# Waiting for another prompt's prefill pays off only if it saves about a step of it.
WORTH_WAITING_FOR = 32


# A sequence that runs alone is prefilled in pieces that end at multiples of this, and takes over cached
# prefixes up to one: so its numbers come out the same whether the prefix was cached or not. From this
# length on ggml's attention goes tile by tile, and a longer piece is as good as several.
ALIGNMENT = 64


class SharedPrefix(NamedTuple):
    """The first ``length`` tokens that KV slot ``slot``, or a copy in the stash, holds."""

    slot: int = NO_SLOT
    length: int = 0
    stashed: Stashed | None = None


class CachedPrefix(NamedTuple):
    """Tokens in a KV slot, and the adapter that they were computed with: no other can go on from them."""

    tokens: list[int]
    adapter: LlamaAdapter | None = None


class LlamaPrefixCache:
    """Cached prefixes by KV slot, least recently used first. Running sequences share theirs as well.

    A slot is free, or caches a prefix, or a sequence runs in it: the cache hands out the first two kinds.
    """

    def __init__(
        self,
        kv: KvCache,
        *,
        enabled: bool = True,
        idle_cell_budget: int = 2**31,
        stash: Stash | None = None,
    ) -> None:
        """``stash`` is for a pooled ``kv``. ``idle_cell_budget`` bounds running sequences times cells that
        only the prefix cache holds.

        Attention looks at the mask of every used cell for every running sequence, so idle cells are not
        free: few sequences may keep many of them, many may keep few. Nothing is shared unless ``enabled``.
        """
        self._kv = kv
        self._enabled = enabled
        self._idle_cell_budget = idle_cell_budget
        self._stash = stash
        self._alone = NO_SLOT  # the only slot opened since the pool was empty
        self._cached: dict[int, CachedPrefix] = {}

    def longest(self, sequence: LlamaSequence, running: Iterable[LlamaSequence]) -> SharedPrefix:
        """The longest prefix of ``sequence`` that some slot holds, computed with its adapter.

        The last token is never shared: its logits are needed. Those of all are where the prompt is scored.
        """
        best = SharedPrefix()
        if not self._enabled or sequence.unscored:
            return best
        limit = len(sequence.tokens) - 1
        for slot, tokens, computed in self._holders(running, sequence.adapter):
            length = min(common_length(sequence.tokens, tokens), computed, limit)
            length = sequence.spans.whole(length)
            if length > best.length:
                best = SharedPrefix(slot, length)
        return max(best, self._stashed(sequence), key=lambda prefix: prefix.length)

    def worth_waiting_for(
        self, sequence: LlamaSequence, prefix: SharedPrefix, running: Iterable[LlamaSequence]
    ) -> tuple[LlamaSequence, int] | None:
        """The running sequence that is about to prefill much more of ``sequence`` than ``prefix`` has, and
        how many tokens of it; None if there is none."""
        if not self._enabled or sequence.unscored:
            return None
        limit = len(sequence.tokens) - 1
        for other in running:
            if not other.is_prefilling or other.adapter is not sequence.adapter:
                continue
            length = sequence.spans.whole(min(common_length(sequence.tokens, other.tokens), limit))
            if length - max(prefix.length, other.computed) >= WORTH_WAITING_FOR:
                return other, length
        return None

    def open(self, prefix: SharedPrefix, busy: Collection[int], reserved: int = 0) -> SharedPrefix:
        """Take a slot and let it begin with ``prefix``, or with nothing if that cannot be had; sequences run
        in the ``busy`` slots, and ``reserved`` cells are for them."""
        self._alone = NO_SLOT
        source, shared, stashed = prefix
        if stashed is not None:
            self.make_room(reserved + len(stashed.tokens))
        place = self._kv.place(busy, list(self._cached), source, 0 if stashed else shared)
        if place.adopt:
            del self._cached[source]
            self._kv.shrink(source, shared)
            return SharedPrefix(source, shared)
        if place.slot in self._cached:
            self.evict(place.slot)
        self._kv.open(place.slot)
        if stashed is not None and self._stash is not None:
            fits = self._kv.free_cells - reserved >= len(stashed.tokens)
            return SharedPrefix(place.slot, self._stash.load(stashed, place.slot, shared) if fits else 0)
        if shared:
            self._kv.share(source, place.slot, shared)
        if source in self._cached:
            self._cached[source] = self._cached.pop(source)  # used just now
        return SharedPrefix(place.slot, shared)

    def open_alone(self, sequence: LlamaSequence) -> SharedPrefix:
        """The same for a sequence beside which nothing runs, so that it always computes the same: it takes
        over a multiple of `ALIGNMENT`, and lies at the beginning of an empty pool."""
        prefix = _aligned(self.longest(sequence, ()), sequence)
        if self._stash is None:
            return self.open(prefix, ())
        slot, length, _ = prefix
        if slot in self._cached and slot == self._alone and 2 * length >= len(self._cached[slot].tokens):
            del self._cached[slot]
            self._kv.shrink(slot, length)
            return prefix
        if slot in self._cached:
            self._cached[slot] = self._cached.pop(slot)  # used just now
        for other, (tokens, adapter) in self._cached.items():
            self._stash.put(other, tokens, adapter)
        self._cached.clear()
        self._stash.empty_pool()
        opened = self.open(_aligned(self._stashed(sequence), sequence), ())
        self._alone = opened.slot
        return opened

    def keep(self, slot: int, tokens: list[int], adapter: LlamaAdapter | None = None) -> None:
        """Cache the ``tokens`` that a finished sequence left in ``slot``; cached prefixes of them say nothing
        more and go."""
        if not self._enabled or not tokens:
            self._kv.release(slot)
            return
        for old_slot, (old, its_adapter) in list(self._cached.items()):
            if its_adapter is adapter and len(old) <= len(tokens) and tokens[: len(old)] == old:
                self.evict(old_slot)
        self._cached[slot] = CachedPrefix(tokens, adapter)

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

    def forget(self, adapter: LlamaAdapter) -> None:
        """Drop every prefix that was computed with ``adapter``."""
        for slot in [slot for slot, cached in self._cached.items() if cached.adapter is adapter]:
            self.evict(slot)
        if self._stash is not None:
            self._stash.forget(adapter)

    def clear(self) -> None:
        """Drop every prefix."""
        for slot in list(self._cached):
            self.evict(slot)

    def _stashed(self, sequence: LlamaSequence) -> SharedPrefix:
        """The longest prefix of ``sequence`` in the stash."""
        best = SharedPrefix()
        for stashed in self._stash.kept if self._stash and self._enabled and not sequence.unscored else ():
            length = min(common_length(sequence.tokens, stashed.tokens), len(sequence.tokens) - 1)
            length = sequence.spans.whole(length)
            if length > best.length and stashed.adapter is sequence.adapter:
                best = SharedPrefix(NO_SLOT, length, stashed)
        return best

    def _holders(
        self, running: Iterable[LlamaSequence], adapter: LlamaAdapter | None
    ) -> Iterator[tuple[int, list[int], int]]:
        """Slots that are computed with ``adapter``, their tokens, and how many of these are computed."""
        cached = ((slot, each.tokens, each.adapter) for slot, each in self._cached.items())
        yield from ((slot, tokens, len(tokens)) for slot, tokens, its in cached if its is adapter)
        yield from ((s.slot, s.tokens, s.computed) for s in running if s.adapter is adapter)


def _aligned(prefix: SharedPrefix, sequence: LlamaSequence) -> SharedPrefix:
    length = sequence.spans.aligned(prefix.length, ALIGNMENT)
    return prefix._replace(length=length) if length else SharedPrefix()


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
