"""Memory in two places: the machine's and the GPUs'."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of main memory and of GPU memory. Where they are one (Apple silicon), all of it is ``ram``."""

    ram: int = 0
    gpu: int = 0

    def __add__(self, other: Footprint) -> Footprint:
        return Footprint(self.ram + other.ram, self.gpu + other.gpu)

    def __sub__(self, other: Footprint) -> Footprint:
        return Footprint(self.ram - other.ram, self.gpu - other.gpu)

    def fits(self, room: Footprint) -> bool:
        return self.ram <= max(0, room.ram) and self.gpu <= max(0, room.gpu)

    def __str__(self) -> str:
        parts = [f"{size_text(self.ram)}"] if self.ram or not self.gpu else []
        return " and ".join(parts + ([f"{size_text(self.gpu)} of GPU memory"] if self.gpu else []))


def size_text(size: int) -> str:
    """``size`` bytes, for people."""
    return f"{size / 2**30:.1f} GiB" if abs(size) >= 2**30 else f"{size / 2**20:.0f} MiB"
