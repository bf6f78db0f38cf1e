"""The stash: conversations that a pool of KV cells gave up, as copies in main memory.

Attention adds up what it reads in the order of the cells, and divides that work by how many there are. A
sequence computes the same twice only if it begins at the first cell of an empty pool, and a prefix that
is shared lies there in order. So whoever starts alone gets an empty pool, and what others left in it
comes here; copying costs a few microseconds a token, computing hundreds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engines.llamacpp.adapters import LlamaAdapter
from engines.llamacpp.kv_cache import PooledKvCache, State


@dataclass(frozen=True, slots=True, eq=False)
class Stashed:
    """A conversation's ``tokens`` and a copy of their cells, which were computed with ``adapter``."""

    tokens: list[int]
    state: State
    adapter: LlamaAdapter | None = None


class Stash:
    """Copies of at most ``limit`` tokens in all, least recently used first."""

    def __init__(self, kv: PooledKvCache, *, limit: int) -> None:
        self._kv = kv
        self._limit = limit
        self._size = 0
        self._kept: list[Stashed] = []

    @property
    def kept(self) -> Sequence[Stashed]:
        return self._kept

    def put(self, slot: int, tokens: list[int], adapter: LlamaAdapter | None = None) -> None:
        """Copy the cells of ``slot``, which hold ``tokens``, unless a longer conversation has them."""
        if len(tokens) > self._limit:
            return
        for old in [each for each in self._kept if each.adapter is adapter]:
            if old.tokens[: len(tokens)] == tokens:
                self._touch(old)
                return
            if tokens[: len(old.tokens)] == old.tokens:
                self._drop(old)
        while self._size + len(tokens) > self._limit:
            self._drop(self._kept[0])
        self._kept.append(Stashed(tokens, self._kv.save(slot), adapter))
        self._size += len(tokens)

    def load(self, stashed: Stashed, slot: int, length: int) -> int:
        """Let the empty ``slot`` hold the first ``length`` tokens; returns how many it does hold: none if no
        cells lie together."""
        if not self._kv.load(slot, stashed.state, len(stashed.tokens)):
            return 0
        self._kv.shrink(slot, length)
        self._touch(stashed)
        return length

    def forget(self, adapter: LlamaAdapter) -> None:
        """Drop what was computed with ``adapter``."""
        for old in [each for each in self._kept if each.adapter is adapter]:
            self._drop(old)

    def empty_pool(self) -> None:
        """Take every slot's cells away, so that the next token gets the first."""
        self._kv.clear()

    def _touch(self, stashed: Stashed) -> None:
        self._kept.remove(stashed)
        self._kept.append(stashed)

    def _drop(self, stashed: Stashed) -> None:
        self._kept.remove(stashed)
        self._size -= len(stashed.tokens)
