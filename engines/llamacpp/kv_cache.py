"""Ownership of KV cells: exact mirrors of llama.cpp's two cache layouts.

llama.cpp does not say how many cells are free, and cells that sequences share are freed only with
their last holder. A mirror counts, so that the scheduler never asks for cells in vain.

*Pooled* (``kv_unified``): one pool of cells, shared by reference. It holds more conversations than
their longest lengths would allow, but attention looks at every used cell's mask for every sequence.
*Split*: every slot has cells of its own. Attention sees only its own sequence's, which makes small
models with many sequences much faster; a shared prefix is copied.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from engines.llamacpp.media.positions import Shifts


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """A copy of what a slot holds, and how its positions are shifted."""

    data: npt.NDArray[np.uint8]
    shifts: Shifts = ()


class CellMemory(Protocol):
    """The native side; `LlamaContext` is one."""

    def copy(self, source: int, target: int, length: int) -> None: ...

    def truncate(self, slot: int, length: int) -> None: ...

    def save(self, slot: int) -> State:
        """A copy of what ``slot`` holds."""
        ...

    def load(self, slot: int, state: State) -> bool:
        """Let the empty ``slot`` hold what was saved, in neighbouring cells; False if there are none."""
        ...

    def clear(self) -> None:
        """Drop everything: the next token gets the first cell."""
        ...


class KvCache(Protocol):
    """Cells held by KV slots. A cell stores one token at one position."""

    cells: int

    @property
    def free_cells(self) -> int: ...

    def place(self, busy: Collection[int], idle: Sequence[int], source: int, shared: int) -> Placement:
        """The slot for a new sequence, given the slots that run, those that only cache (least recently
        used first), and the slot whose first ``shared`` tokens it begins with (if ``shared``)."""
        ...

    def open(self, slot: int) -> None:
        """Take a free slot."""
        ...

    def share(self, source: int, target: int, length: int) -> None:
        """Let the empty ``target`` hold the first ``length`` tokens of ``source`` as well."""
        ...

    def grow(self, slot: int, count: int) -> None:
        """Note that a forward pass stored ``count`` more tokens for ``slot``."""
        ...

    def restore(self, slot: int) -> None:
        """Drop what a failed forward pass may have left of ``slot`` beyond what `grow` noted."""
        ...

    def shrink(self, slot: int, length: int) -> None:
        """Keep only the first ``length`` tokens of ``slot``."""
        ...

    def release(self, slot: int) -> None:
        """Give up the slot; cells nobody else holds become free."""
        ...

    def distinct(self, slots: Iterable[int]) -> int:
        """Cells that at least one of ``slots`` holds."""
        ...


@dataclass(frozen=True, slots=True)
class Placement:
    """The slot for a new sequence: a free one, or a cached one to evict or (``adopt``) to go on in."""

    slot: int
    adopt: bool = False


class PooledKvCache:
    """One pool of ``cells``, shared by reference between ``slots``."""

    def __init__(self, memory: CellMemory, *, cells: int, slots: int) -> None:
        self._memory = memory
        self.cells = cells
        self._references = np.zeros(cells, dtype=np.int32)
        self._free_cells = list(range(cells))
        self._free_slots = list(range(slots))
        self._held: dict[int, array[int]] = {}

    @property
    def free_cells(self) -> int:
        return len(self._free_cells)

    def place(self, busy: Collection[int], idle: Sequence[int], source: int, shared: int) -> Placement:
        # Any slot is as good as any other; the source's cells are shared, so it may as well stay.
        if self._free_slots:
            return Placement(self._free_slots[-1])
        return Placement(next(slot for slot in idle if slot != source or not shared))

    def open(self, slot: int) -> None:
        self._free_slots.remove(slot)
        self._held[slot] = array("i")

    def share(self, source: int, target: int, length: int) -> None:
        cells = self._held[source][:length]
        self._held[target] = cells
        self._references[np.frombuffer(cells, dtype=np.int32)] += 1
        self._memory.copy(source, target, length)

    def grow(self, slot: int, count: int) -> None:
        for _ in range(count):
            cell = self._free_cells.pop()
            self._references[cell] = 1
            self._held[slot].append(cell)

    def restore(self, slot: int) -> None:
        self._memory.truncate(slot, len(self._held[slot]))

    def shrink(self, slot: int, length: int) -> None:
        held = self._held[slot]
        self._held[slot] = held[:length]
        self._drop(held[length:])
        self._memory.truncate(slot, length)

    def release(self, slot: int) -> None:
        self._drop(self._held.pop(slot))
        self._free_slots.append(slot)
        self._memory.truncate(slot, 0)

    def _drop(self, held: array[int]) -> None:
        cells = np.frombuffer(held, dtype=np.int32)
        self._references[cells] -= 1
        self._free_cells.extend(cells[self._references[cells] == 0].tolist())

    def save(self, slot: int) -> State:
        """A copy of the cells of ``slot``."""
        return self._memory.save(slot)

    def load(self, slot: int, state: State, count: int) -> bool:
        """Let the empty ``slot`` hold the ``count`` tokens of ``state``; False if no cells lie together."""
        if count > self.free_cells or not self._memory.load(slot, state):
            return False
        self.grow(slot, count)
        return True

    def clear(self) -> None:
        """Give up every slot, and begin at the first cell again."""
        for slot in list(self._held):
            self._drop(self._held.pop(slot))
            self._free_slots.append(slot)
        self._memory.clear()

    def distinct(self, slots: Iterable[int]) -> int:
        held = np.zeros(self.cells, dtype=np.bool_)
        for slot in slots:
            held[np.frombuffer(self._held[slot], dtype=np.int32)] = True
        return int(held.sum())


# Copying this many cells costs less than computing them, even with what a copy costs at least.
WORTH_COPYING = 16


class SplitKvCache:
    """Every one of ``slots`` has ``per_slot`` cells of its own.

    llama.cpp runs neighbouring slots in one forward pass and distant ones in several, so sequences are
    placed next to each other.
    """

    def __init__(self, memory: CellMemory, *, per_slot: int, slots: int) -> None:
        self._memory = memory
        self.cells = per_slot * slots
        self._free_slots = set(range(slots))
        self._lengths: dict[int, int] = {}

    @property
    def free_cells(self) -> int:
        return self.cells - sum(self._lengths.values())

    def place(self, busy: Collection[int], idle: Sequence[int], source: int, shared: int) -> Placement:
        taken = set(busy)
        candidates = [*sorted(self._free_slots), *idle]
        best = min(candidates, key=lambda slot: _passes(taken | {slot}))
        mostly_used = shared and source in idle and 2 * shared >= self._lengths[source]
        if mostly_used and _passes(taken | {source}) == _passes(taken | {best}):
            return Placement(source, adopt=True)
        if best == source and shared and len(candidates) > 1:
            # What is evicted cannot be copied from.
            best = min((c for c in candidates if c != source), key=lambda slot: _passes(taken | {slot}))
        return Placement(best, adopt=best == source and shared > 0)

    def open(self, slot: int) -> None:
        self._free_slots.remove(slot)
        self._lengths[slot] = 0

    def share(self, source: int, target: int, length: int) -> None:
        self._memory.copy(source, target, length)
        self._lengths[target] = length

    def grow(self, slot: int, count: int) -> None:
        self._lengths[slot] += count

    def restore(self, slot: int) -> None:
        self._memory.truncate(slot, self._lengths[slot])

    def shrink(self, slot: int, length: int) -> None:
        self._lengths[slot] = length
        self._memory.truncate(slot, length)

    def release(self, slot: int) -> None:
        del self._lengths[slot]
        self._free_slots.add(slot)
        self._memory.truncate(slot, 0)

    def distinct(self, slots: Iterable[int]) -> int:
        return sum(self._lengths[slot] for slot in slots)


def _passes(slots: set[int]) -> int:
    """Runs of neighbouring slots: the forward passes a step takes."""
    return sum(slot - 1 not in slots for slot in slots)
