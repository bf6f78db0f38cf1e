"""The meter of a transfer: counts bytes and reports the progress, a few times a second."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from engines.machine.job_process import Send

REPORT_SECONDS = 0.2
SMOOTHING_SECONDS = 3.0


class TransferMeter:
    """Progress of one phase after another. Thread-safe."""

    def __init__(self, send: Send, clock: Callable[[], float] = time.monotonic) -> None:
        self._send = send
        self._clock = clock
        self._lock = threading.Lock()
        self._file: str | None = None
        self._begin("resolving", None, 0)

    def start(self, status: str, total: int | None = None, completed: int = 0) -> None:
        """Begin a phase of ``total`` bytes, of which ``completed`` were there already."""
        with self._lock:
            self._begin(status, total, completed)
            self._report()

    def add(self, count: int, file: str) -> None:
        """``count`` bytes more of ``file``; fewer, if what was there had to be thrown away."""
        with self._lock:
            self._file = file
            self._completed += count
            if self._clock() - self._reported_at >= REPORT_SECONDS:
                self._report()

    def finish(self) -> None:
        """Report the end of a phase."""
        with self._lock:
            self._report()

    def _begin(self, status: str, total: int | None, completed: int) -> None:
        self._status = status
        self._file = None
        self._total = total
        self._completed = self._reported = completed
        self._started_at = self._reported_at = self._clock()
        self._speed = 0.0

    def _report(self) -> None:
        self._measure()
        left = None if self._total is None else self._total - self._completed
        eta = left / self._speed if left is not None and self._speed > 0 else None
        self._send(
            {
                "progress": {
                    "status": self._status,
                    "file": self._file,
                    "completed": self._completed,
                    "total": self._total,
                    "speed": round(self._speed, 1),
                    "eta_seconds": None if eta is None else round(eta, 1),
                }
            }
        )

    def _measure(self) -> None:
        """Move the speed towards that since the last report; fast at first, when little is known."""
        now = self._clock()
        elapsed = now - self._reported_at
        if elapsed > 0:
            latest = max(0, self._completed - self._reported) / elapsed
            memory = min(SMOOTHING_SECONDS, self._reported_at - self._started_at)
            weight = 1 - math.exp(-elapsed / memory) if memory > 0 else 1.0
            self._speed += weight * (latest - self._speed)
        self._reported, self._reported_at = self._completed, now
