from __future__ import annotations

import numpy as np

from engines.llamacpp.kv_cache import Placement, PooledKvCache, SplitKvCache, State


class Memory:
    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def copy(self, source: int, target: int, length: int) -> None:
        self.calls.append(("copy", source, target, length))

    def truncate(self, slot: int, length: int) -> None:
        self.calls.append(("truncate", slot, length))

    def save(self, slot: int) -> State:
        return np.zeros(1, dtype=np.uint8)

    def load(self, slot: int, state: State) -> bool:
        return True

    def clear(self) -> None: ...


def test_shared_cells_are_free_only_with_their_last_holder() -> None:
    memory = Memory()
    kv = PooledKvCache(memory, cells=100, slots=4)
    a, b = opened(kv), opened(kv)
    kv.grow(a, 30)
    kv.share(a, b, 20)
    kv.grow(b, 5)
    assert kv.free_cells == 65
    assert kv.distinct([a]) == 30
    assert kv.distinct([b]) == 25
    assert kv.distinct([a, b]) == 35
    kv.release(a)
    assert kv.free_cells == 75
    kv.release(b)
    assert kv.free_cells == 100
    assert memory.calls == [("copy", a, b, 20), ("truncate", a, 0), ("truncate", b, 0)]


def test_restore_drops_what_was_not_noted() -> None:
    memory = Memory()
    kv = PooledKvCache(memory, cells=10, slots=1)
    slot = opened(kv)
    kv.grow(slot, 3)
    kv.restore(slot)
    assert memory.calls == [("truncate", slot, 3)]
    assert kv.distinct([slot]) == 3


def test_shrinking_frees_the_rest() -> None:
    memory = Memory()
    kv = PooledKvCache(memory, cells=10, slots=1)
    slot = opened(kv)
    kv.grow(slot, 8)
    kv.shrink(slot, 3)
    assert (kv.free_cells, kv.distinct([slot])) == (7, 3)
    assert memory.calls == [("truncate", slot, 3)]


def test_a_pool_evicts_the_oldest_but_not_the_source() -> None:
    kv = PooledKvCache(Memory(), cells=100, slots=3)
    first, second, third = opened(kv), opened(kv), opened(kv)
    assert kv.place([third], [first, second], source=first, shared=10) == Placement(second)
    assert kv.place([third], [first, second], source=-1, shared=0) == Placement(first)


def split(slots: int = 4) -> SplitKvCache:
    return SplitKvCache(Memory(), per_slot=100, slots=slots)


def test_split_slots_run_next_to_each_other() -> None:
    kv = split()
    slots = [opened(kv, busy) for busy in ([], [0], [0, 1])]
    assert slots == [0, 1, 2]
    kv.release(1)
    assert kv.place([0, 2], [], -1, 0) == Placement(1)


def test_a_split_slot_goes_on_where_its_conversation_ended() -> None:
    kv = split()
    slot = opened(kv)
    kv.grow(slot, 50)
    assert kv.place([], [slot], source=slot, shared=40) == Placement(slot, adopt=True)
    kv.shrink(slot, 40)
    assert kv.distinct([slot]) == 40


def test_a_split_slot_that_shares_little_is_copied_from() -> None:
    memory = Memory()
    kv = SplitKvCache(memory, per_slot=100, slots=4)
    source = opened(kv)
    kv.grow(source, 90)
    place = kv.place([], [source], source=source, shared=30)
    assert not place.adopt
    assert place.slot != source
    kv.open(place.slot)
    kv.share(source, place.slot, 30)
    assert memory.calls == [("copy", source, place.slot, 30)]
    assert (kv.distinct([place.slot]), kv.distinct([source, place.slot])) == (30, 120)


def test_a_split_cache_prefers_neighbours_to_an_adoption_far_away() -> None:
    kv = split(slots=8)
    for _ in range(8):
        opened(kv)
    for slot in range(8):
        kv.grow(slot, 20)
    place = kv.place([2, 3], [0, 1, 4, 5, 6, 7], source=7, shared=20)
    assert place.slot in (1, 4)


def opened(kv: PooledKvCache | SplitKvCache, busy: list[int] | None = None) -> int:
    slot = kv.place(busy or [], [], -1, 0).slot
    kv.open(slot)
    return slot
