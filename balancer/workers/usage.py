"""Process meter: the CPU time and memory that a process and its own children use."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class ProcessFigures:
    """A sample of a process and its children. ``memory``: resident, in bytes.

    ``cpu_percent``: since the sample before (0 in the first); 100 is one core.
    """

    cpu_percent: float = 0.0
    memory: int = 0


# The system counts CPU time in hundredths of a second: over less than this, a percentage is noise.
_SHORTEST_WINDOW = 0.5


class ProcessMeter:
    """Samples the process ``pid``. Takes milliseconds, for it looks through all processes."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before: tuple[float, float] | None = None
        self._percent = 0.0

    def sample(self) -> ProcessFigures:
        """Raises `psutil.Error` if the process is gone."""
        root = psutil.Process(self._pid)
        seconds, memory = _usage(root)
        for child in root.children(recursive=True):
            try:
                more, size = _usage(child)
            except psutil.Error:  # it ended meanwhile
                continue
            seconds, memory = seconds + more, memory + size
        self._update_percent(seconds)
        return ProcessFigures(self._percent, memory)

    def _update_percent(self, seconds: float) -> None:
        now = time.monotonic()
        if self._before is None:
            self._before = now, seconds
            return
        at, before = self._before
        if now - at >= _SHORTEST_WINDOW:
            # Less than before if a child ended and took its share of the sum along.
            self._percent = 100 * max(0.0, seconds - before) / (now - at)
            self._before = now, seconds


def _usage(process: psutil.Process) -> tuple[float, int]:
    """CPU seconds and resident bytes."""
    with process.oneshot():
        cpu = process.cpu_times()
        return cpu.user + cpu.system, int(process.memory_info().rss)
