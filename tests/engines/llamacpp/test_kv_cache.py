from __future__ import annotations

from engines.llamacpp.kv_cache import KvCache


class Memory:
    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def copy(self, source: int, target: int, length: int) -> None:
        self.calls.append(("copy", source, target, length))

    def truncate(self, slot: int, length: int) -> None:
        self.calls.append(("truncate", slot, length))

    def clear(self) -> None:
        self.calls.append(("clear",))


def test_shared_cells_are_free_only_with_their_last_holder() -> None:
    memory = Memory()
    kv = KvCache(memory, cells=100, slots=4)
    a, b = kv.take_slot(), kv.take_slot()
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
    kv = KvCache(memory, cells=10, slots=1)
    slot = kv.take_slot()
    kv.grow(slot, 3)
    kv.restore(slot)
    assert memory.calls == [("truncate", slot, 3)]
    assert kv.length(slot) == 3


def test_slots_come_back() -> None:
    kv = KvCache(Memory(), cells=10, slots=2)
    kv.take_slot()
    slot = kv.take_slot()
    assert not kv.has_free_slot
    kv.release(slot)
    assert kv.has_free_slot
