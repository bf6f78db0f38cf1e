"""Connection pool: connections to upstreams and workers, kept for the next request."""

from __future__ import annotations

import asyncio
import ssl

from balancer.errors import BackendFailed, BackendTimedOut, BadAnswer
from balancer.proxy.connection import Connection
from balancer.proxy.guard import Guard
from balancer.proxy.route import Origin, Route
from balancer.proxy.tunnel import open_tunnel

# Seconds that an unused connection is trusted: firewalls forget silently, servers close aloud.
IDLE_SECONDS = 15.0
# Unused connections that are kept to one origin.
MAX_IDLE = 128


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

    async def connect(self, route: Route, guard: Guard | None = None) -> Connection:
        """A new connection, to an address that ``guard`` allows. Raises `BackendFailed`."""
        where = str(route.origin) if route.proxy is None else f"{route.origin} (by the proxy {route.proxy})"
        try:
            async with asyncio.timeout(self._connect_timeout):
                connection = await self._dial(route, guard)
        except TimeoutError:
            seconds = f"{self._connect_timeout:g} s"
            raise BackendTimedOut(f"{where} took no connection within {seconds}") from None
        except ssl.SSLCertVerificationError as error:
            reason = error.verify_message
            raise BadAnswer(f"the certificate of {where} is not trusted: {reason}") from error
        except (OSError, UnicodeError) as error:
            raise BackendFailed(f"{where} cannot be reached: {error}") from error
        if connection.is_open:
            self._open.add(connection)
        return connection

    async def _dial(self, route: Route, guard: Guard | None) -> Connection:
        origin, proxy, loop = route.origin, route.proxy, asyncio.get_running_loop()
        connection = Connection(str(origin), self._lost)
        if guard is not None:
            guard.check(origin)
        if proxy is not None and origin.is_tls:
            tunnel = await open_tunnel(proxy, origin)
            try:
                transport = await loop.start_tls(
                    tunnel, connection, self._context(), server_hostname=route.server_name or origin.host
                )
            except BaseException:
                tunnel.abort()
                raise
            if transport is None:  # lost right after the handshake
                raise ConnectionResetError("the connection was closed")
            connection.connection_made(transport)
        elif proxy is not None:
            await loop.create_connection(lambda: connection, proxy.host, proxy.port)
        else:
            await self._dial_origin(connection, route, guard)
        return connection

    async def _dial_origin(self, connection: Connection, route: Route, guard: Guard | None) -> None:
        """Connect to the first address that takes it: with a ``guard``, of those only that it allows."""
        origin = route.origin
        hosts = [origin.host] if guard is None else await guard.addresses(origin)
        tls = self._context() if origin.is_tls else None
        name = (route.server_name or origin.host) if origin.is_tls else None
        loop = asyncio.get_running_loop()
        failure: OSError | None = None
        for host in hosts:
            try:
                await loop.create_connection(
                    lambda: connection, host, origin.port, ssl=tls, server_hostname=name
                )
                return
            except ssl.SSLError:
                raise
            except OSError as error:
                failure = error
        raise failure or OSError("it has no address")

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
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    def _lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        for idle in self._idle.values():
            if connection in idle:
                idle.remove(connection)
