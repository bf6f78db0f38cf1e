"""Positions of tokens in KV slots, where a picture has other than as many positions as embeddings."""

from __future__ import annotations

from typing import NamedTuple


class Shift(NamedTuple):
    """From token ``start`` of a slot on, positions are ``by`` more than the number of tokens before them."""

    start: int
    by: int


Shifts = tuple[Shift, ...]


class SlotPositions:
    """The shifts of each KV slot. What nobody shifted has as many positions as tokens."""

    def __init__(self) -> None:
        self._shifts: dict[int, Shifts] = {}

    def at(self, slot: int, index: int) -> int:
        """The position of the token at ``index`` of ``slot``; within a chunk that was not noted, of none."""
        shift = 0
        for start, by in self._shifts.get(slot, ()):
            if start > index:
                break
            shift = by
        return index + shift

    def note(self, slot: int, start: int, end: int, positions: int) -> None:
        """The chunk from token ``start`` to ``end`` of ``slot`` was computed, and takes ``positions``."""
        if positions == end - start:
            return
        by = self.at(slot, start) - start + positions - (end - start)
        before = [shift for shift in self._shifts.get(slot, ()) if shift.start <= start]
        self._shifts[slot] = (*before, Shift(end, by))

    def of(self, slot: int) -> Shifts:
        return self._shifts.get(slot, ())

    def set(self, slot: int, shifts: Shifts, length: int | None = None) -> None:
        """Let the tokens of ``slot``, or the first ``length``, lie as ``shifts`` say."""
        kept = tuple(shift for shift in shifts if length is None or shift.start <= length)
        if kept:
            self._shifts[slot] = kept
        else:
            self._shifts.pop(slot, None)

    def cut(self, slot: int, length: int) -> None:
        """Keep the first ``length`` tokens of ``slot``."""
        if slot in self._shifts:
            self.set(slot, self._shifts[slot], length)

    def clear(self) -> None:
        self._shifts.clear()
