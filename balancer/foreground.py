"""Foreground: the calls that somebody waits for. Work in the background keeps out of their way."""

from __future__ import annotations

import time
from collections.abc import Callable

from balancer.call import Call

Listener = Callable[[], None]


class Foreground:
    """The count of calls in the queue and on backends, but for those in the background."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ended: float | None = None
        self._listeners: list[Listener] = []
        self.count = 0

    @property
    def quiet_seconds(self) -> float:
        """How long there has been none; endless before the first."""
        if self.count:
            return 0.0
        return float("inf") if self._ended is None else self._clock() - self._ended

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Have ``listener`` called when the first call comes and when the last one has ended; returns what
        stops that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def begin(self, call: Call) -> None:
        if not call.is_background:
            self.count += 1
            if self.count == 1:
                self._tell()

    def end(self, call: Call) -> None:
        if not call.is_background:
            self.count -= 1
            if not self.count:
                self._ended = self._clock()
                self._tell()

    def _tell(self) -> None:
        for listener in tuple(self._listeners):
            listener()
