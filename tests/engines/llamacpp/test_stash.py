"""Copies of conversations, bounded."""

from __future__ import annotations

import numpy as np

from engines.llamacpp.kv_cache import PooledKvCache, State
from engines.llamacpp.stash import Stash


class Memory:
    """Has room for what was saved, or has not."""

    def __init__(self) -> None:
        self.has_room = True
        self.saved: list[int] = []

    def copy(self, source: int, target: int, length: int) -> None: ...

    def truncate(self, slot: int, length: int) -> None: ...

    def save(self, slot: int) -> State:
        self.saved.append(slot)
        return np.zeros(1, dtype=np.uint8)

    def load(self, slot: int, state: State) -> bool:
        return self.has_room

    def clear(self) -> None: ...


def stash() -> tuple[Stash, PooledKvCache, Memory]:
    memory = Memory()
    kv = PooledKvCache(memory, cells=20, slots=4)
    return Stash(kv, limit=10), kv, memory


def test_the_least_recently_used_makes_way() -> None:
    kept, kv, _ = stash()
    for start in (10, 20):
        kept.put(0, [start, start + 1, start + 2])
    kv.open(3)
    assert kept.load(kept.kept[0], 3, 2) == 2
    assert kv.distinct([3]) == 2
    kept.put(0, list(range(30, 36)))
    assert [each.tokens[0] for each in kept.kept] == [10, 30]


def test_what_says_nothing_more_is_not_copied() -> None:
    kept, _, memory = stash()
    kept.put(0, [1, 2, 3])
    kept.put(1, [1, 2])
    kept.put(2, list(range(11)))  # more than all may be
    assert memory.saved == [0]
    kept.put(3, [1, 2, 3, 4])
    assert [each.tokens for each in kept.kept] == [[1, 2, 3, 4]]


def test_without_room_in_one_place_nothing_is_loaded() -> None:
    kept, kv, memory = stash()
    kept.put(0, [1, 2, 3])
    kv.open(3)
    memory.has_room = False
    assert kept.load(kept.kept[0], 3, 2) == 0
    assert kv.free_cells == 20
