"""Cost of KV caches in bytes. Pure: caches are looked at, never made."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

# mlx-lm grows a cache by so many tokens at a time.
GROWTH_STEP = 256


@dataclass(frozen=True, slots=True)
class KvCost:
    """Bytes that one sequence's KV cache takes.

    ``per_token`` sums up the layers that keep every token; each of ``windows`` is a layer's bytes a token
    and the most tokens it keeps; ``fixed`` are states that do not grow.
    """

    per_token: int
    windows: tuple[tuple[int, int], ...] = ()
    fixed: int = 0

    def sequence(self, tokens: int) -> int:
        """Bytes of a sequence of ``tokens``, with the room that its cache grows by."""
        room = tokens + GROWTH_STEP
        windowed = sum(cost * min(room, kept) for cost, kept in self.windows)
        return self.per_token * room + windowed + self.fixed

    def batch(self, rows: int, longest: int) -> int:
        """Bytes of ``rows`` sequences in one batch: each is padded to the ``longest``, in tokens."""
        return rows * self.sequence(longest)

    def most_tokens(self, budget: int, limit: int) -> int:
        """How long a sequence may get alone within ``budget`` bytes, at most ``limit`` tokens."""
        return bisect_right(range(limit + 1), budget, key=self.sequence) - 1

    @property
    def marginal(self) -> int:
        """Bytes that a short sequence's next token takes; at least 1."""
        return max(1, self.sequence(1) - self.sequence(0))


def kv_cost(caches: Iterable[Any]) -> KvCost:
    """The cost of sequences whose caches are like ``caches``, which hold one short sequence."""
    per_token = fixed = 0
    windows = []
    for cache in _layers(caches):
        keys = getattr(cache, "keys", None)
        if keys is None:
            fixed += int(cache.nbytes)
            continue
        cost = int(cache.nbytes) // int(keys.shape[2])
        if (window := getattr(cache, "max_size", None)) is not None:
            windows.append((cost, int(window)))
        else:
            per_token += cost
    return KvCost(per_token, tuple(windows), fixed)


def _layers(caches: Iterable[Any]) -> Iterator[Any]:
    """Single caches; a layer may have several."""
    for cache in caches:
        parts = getattr(cache, "caches", None)
        if parts is None:
            yield cache
        else:
            yield from _layers(parts)
