"""Departures: clients that sent the end of their stream, and are gone or still wait for their answer.

Both look alike until something is sent: a host answers for a socket that is gone with a reset. To a client of
HTTP/1.0 nothing can be sent in front of its answer: one that is gone shows with that.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from itertools import chain, repeat

# What every client of HTTP/1.1 must be able to skip in front of its answer.
PROBE = b"HTTP/1.1 100 Continue\r\n\r\n"
# Seconds between looks: a reset comes at once from this machine, and within a second from most others.
_LOOKS = (0.0, 0.01, 0.05, 0.25)
_LATER = 1.0


class DepartureWatch:
    """Looks for a reset on a connection whose client sends no more, and calls ``on_gone`` once there is one.

    The event loop does not look any more: it only waits for what a client sends.
    """

    def __init__(self, transport: asyncio.Transport, on_gone: Callable[[], None]) -> None:
        self._socket = transport.get_extra_info("socket")
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        self._waits: Iterator[float] = chain(_LOOKS, repeat(_LATER))
        self._timer = self._loop.call_later(next(self._waits), self._look)

    def cancel(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._on_gone()
        else:
            self._timer = self._loop.call_later(next(self._waits), self._look)
