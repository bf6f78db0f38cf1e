"""Connections to upstreams, kept for the next request."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from balancer.errors import BackendFailed
from balancer.proxy.connection import Connection

# Seconds that an unused connection is trusted: firewalls forget silently, servers close aloud.
IDLE_SECONDS = 15.0
# Unused connections that are kept to one origin.
MAX_IDLE = 128


@dataclass(frozen=True, slots=True)
class Origin:
    host: str
    port: int
    is_tls: bool

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Target:
    """A URL in the parts that a request needs."""

    origin: Origin
    host_header: bytes
    path: bytes


@lru_cache(256)
def target_of(url: str) -> Target:
    """``url`` is absolute, http or https, and has no credentials."""
    parts = urlsplit(url)
    is_tls = parts.scheme == "https"
    origin = Origin(parts.hostname or "", parts.port or (443 if is_tls else 80), is_tls)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(origin, parts.netloc.encode("ascii"), path.encode("ascii"))


class ConnectionPool:
    """Owns all connections. There is no limit here: backends have theirs."""

    def __init__(self, connect_timeout: float) -> None:
        self._connect_timeout = connect_timeout
        self._tls: ssl.SSLContext | None = None
        self._idle: dict[Origin, list[Connection]] = {}
        self._open: set[Connection] = set()

    def reuse(self, origin: Origin) -> Connection | None:
        """A connection that is open already: the one used last, so that the others may grow old."""
        idle = self._idle.get(origin)
        if not idle:
            return None
        connection = idle.pop()
        if connection.idle_since >= asyncio.get_running_loop().time() - IDLE_SECONDS:
            return connection
        for old in (connection, *idle):
            old.close()
        idle.clear()
        return None

    async def connect(self, origin: Origin) -> Connection:
        """A new connection. Raises `BackendFailed`."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout):
                _, connection = await loop.create_connection(
                    lambda: Connection(str(origin), self._lost),
                    origin.host,
                    origin.port,
                    ssl=self._context() if origin.is_tls else None,
                )
        except TimeoutError:
            raise BackendFailed(f"{origin} took no connection within {self._connect_timeout:g} s") from None
        except (OSError, UnicodeError) as error:
            raise BackendFailed(f"{origin} cannot be reached: {error}") from error
        self._open.add(connection)
        return connection

    def give_back(self, connection: Connection, origin: Origin) -> None:
        """Keep it for the next request if its exchange ended well; drop it otherwise."""
        idle = self._idle.setdefault(origin, [])
        if connection.is_reusable and connection in self._open and len(idle) < MAX_IDLE:
            connection.idle_since = asyncio.get_running_loop().time()
            idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        for connection in tuple(self._open):
            connection.close()
        self._idle.clear()
        self._open.clear()

    def _context(self) -> ssl.SSLContext:
        # Reading the system's certificates takes a while: once, and only where it is needed.
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def _lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        for idle in self._idle.values():
            if connection in idle:
                idle.remove(connection)
