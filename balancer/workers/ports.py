"""Listening sockets on free ports of the loopback address."""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection

LOOPBACK = "127.0.0.1"
# Connections that wait to be accepted; uvicorn's own default.
BACKLOG = 2048
_LAST = 65535


def listen(first: int, taken: Collection[int] = ()) -> socket.socket:
    """Listen on the first free port at or above ``first`` that is none of ``taken``.

    The socket is handed to the process that serves there: a number alone could be somebody else's by the
    time that process is up. Raises `OSError` if no port is free.
    """
    for port in range(first, _LAST + 1):
        if port in taken:
            continue
        try:
            listener = socket.create_server((LOOPBACK, port), backlog=BACKLOG)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
        else:
            # Accepted sockets inherit it; asyncio sets it only on those it made itself.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return listener
    raise OSError(errno.EADDRINUSE, f"no port from {first} up is free")
