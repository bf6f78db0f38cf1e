"""Who holds which KV cells: an exact mirror of llama.cpp's unified cell pool.

llama.cpp does not say how many cells are free, and cells that sequences share are freed only with
their last holder. The mirror counts references, so that the scheduler never asks for cells in vain.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Protocol

import numpy as np


class CellMemory(Protocol):
    """The native side; `LlamaContext` is one."""

    def copy(self, source: int, target: int, length: int) -> None: ...

    def truncate(self, slot: int, length: int) -> None: ...

    def clear(self) -> None: ...


class KvCache:
    """A pool of ``cells`` held by ``slots`` KV sequences. A cell stores one token at one position."""

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

    @property
    def has_free_slot(self) -> bool:
        return bool(self._free_slots)

    def length(self, slot: int) -> int:
        """Tokens that ``slot`` holds."""
        return len(self._held[slot])

    def take_slot(self) -> int:
        slot = self._free_slots.pop()
        self._held[slot] = array("i")
        return slot

    def share(self, source: int, target: int, length: int) -> None:
        """Let the empty ``target`` hold the first ``length`` cells of ``source`` as well."""
        cells = self._held[source][:length]
        self._held[target] = cells
        self._references[np.frombuffer(cells, dtype=np.int32)] += 1
        self._memory.copy(source, target, length)

    def grow(self, slot: int, count: int) -> None:
        """Note that a forward pass stored ``count`` more tokens for ``slot``."""
        for _ in range(count):
            cell = self._free_cells.pop()
            self._references[cell] = 1
            self._held[slot].append(cell)

    def restore(self, slot: int) -> None:
        """Drop what a failed forward pass may have left of ``slot`` beyond what `grow` noted."""
        self._memory.truncate(slot, len(self._held[slot]))

    def release(self, slot: int) -> None:
        """Give up the slot; cells nobody else holds become free."""
        cells = np.frombuffer(self._held.pop(slot), dtype=np.int32)
        self._references[cells] -= 1
        self._free_cells.extend(cells[self._references[cells] == 0].tolist())
        self._free_slots.append(slot)
        self._memory.truncate(slot, 0)

    def distinct(self, slots: Iterable[int]) -> int:
        """Cells that at least one of ``slots`` holds."""
        held = np.zeros(self.cells, dtype=np.bool_)
        for slot in slots:
            held[np.frombuffer(self._held[slot], dtype=np.int32)] = True
        return int(held.sum())
