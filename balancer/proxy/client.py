"""Proxy client: sends calls to upstreams and workers, and brings their answers back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from balancer.call import ByteStream, Reply, ResumePoint, TokenMeter, WireFormat
from balancer.errors import BackendFailed, BackendTimedOut
from balancer.proxy import headers as proxy_headers
from balancer.proxy.body import ProxiedBody, Release, WorkerBody
from balancer.proxy.connection import Connection, Patience
from balancer.proxy.headers import Header
from balancer.proxy.pool import ConnectionPool
from balancer.proxy.route import Route, Routes
from balancer.workers.protocol import worker_request

# A probe's answer that is longer is cut here, in bytes.
MAX_PROBE = 4 * 1024 * 1024


class ProxyClient:
    """The HTTP/1.1 client of the whole server: it owns the connections to upstreams and workers.

    Time-outs are in seconds: ``first_byte_timeout`` until the first byte of an answer's body, of which
    servers send the headers before they have anything to say; ``stall_timeout`` between the bytes after it,
    while the client is ready for more. ``proxies``: forward proxies as `Routes` wants them.

    A redirect is an upstream's fault: it is not followed, since the key and the body would go along, and not
    passed on, since the client has no business there.
    """

    def __init__(
        self,
        *,
        first_byte_timeout: float = 300.0,
        stall_timeout: float = 60.0,
        connect_timeout: float = 5.0,
        proxies: Mapping[str, str] | None = None,
    ) -> None:
        self._patience = Patience(first_byte_timeout, stall_timeout)
        self._routes = Routes(proxies)
        self._pool = ConnectionPool(connect_timeout)

    async def post(
        self,
        url: str,
        headers: Iterable[Header],
        body: bytes,
        *,
        wire: WireFormat,
        meter: TokenMeter,
        key: str | None = None,
        request_id: str | None = None,
    ) -> Reply:
        """Send ``body`` to an upstream; the reply has any status, and its body is still to come.

        Of the client's ``headers`` those go along that may (`for_upstream`); ``key`` is the upstream's own.
        ``meter`` counts the tokens that pass, as far as ``wire`` can tell. Raises `BackendFailed` if there is
        no answer.
        """
        headers = tuple(headers)
        encoding = proxy_headers.encoding_for_upstream(headers)
        connection, release = await self._post(url, headers, encoding, body, key, request_id)
        return _reply(connection, _proxied(connection, release, wire, meter))

    async def post_to_worker(
        self,
        url: str,
        headers: Iterable[Header],
        body: bytes,
        *,
        resume_point: ResumePoint | None,
        wire: WireFormat,
        meter: TokenMeter,
        key: str,
        request_id: str,
    ) -> Reply:
        """As `post`, to one of our workers, whose stream can be resumed: it tells its tokens, and goes on
        from ``resume_point`` if another backend began the answer."""
        protocol, body = worker_request(body, resume_point)
        connection, release = await self._post(url, headers, b"identity", body, key, request_id, protocol)
        if _is_events(connection):
            return _reply(connection, WorkerBody(connection, release, meter=meter, begun=resume_point))
        return _reply(connection, _proxied(connection, release, wire, meter))

    async def _post(
        self,
        url: str,
        headers: Iterable[Header],
        encoding: bytes,
        body: bytes,
        key: str | None,
        request_id: str | None,
        more: Iterable[Header] = (),
    ) -> tuple[Connection, Release]:
        route = self._routes.to(url)
        allowed = [*proxy_headers.for_upstream(headers), (b"accept-encoding", encoding), *more]
        if request_id is not None:
            allowed.append((b"x-request-id", request_id.encode()))
        request = _request(b"POST", route, allowed, key, body)
        connection = await self._exchange(route, request, self._patience)
        return connection, lambda used: self._pool.give_back(used, route.origin)

    async def get(
        self,
        url: str,
        headers: Iterable[Header] = (),
        timeout: float = 5.0,
        *,
        key: str | None = None,
        fresh: bool = False,
    ) -> tuple[int, bytes]:
        """Status and body of a small document, within ``timeout`` seconds.

        ``fresh``: on a connection of its own, to see that new ones are taken. Raises `BackendFailed`, also
        if the document is large, and `BackendTimedOut`.
        """
        route = self._routes.to(url)
        allowed = [*proxy_headers.for_upstream(headers), (b"accept-encoding", b"identity")]
        request = _request(b"GET", route, allowed, key)
        try:
            async with asyncio.timeout(timeout):
                patience = Patience(timeout, timeout)
                connection = await self._exchange(route, request, patience, fresh=fresh)
                try:
                    return connection.status, await _whole(connection)
                finally:
                    if fresh:
                        connection.close()
                    else:
                        self._pool.give_back(connection, route.origin)
        except TimeoutError:
            raise BackendTimedOut(f"{route.origin} gave no answer within {timeout:g} s") from None

    async def close(self) -> None:
        """Drop all connections."""
        self._pool.close()
        await asyncio.sleep(0)  # they are lost in the loop's next turn

    async def _exchange(
        self, route: Route, request: bytes, patience: Patience, *, fresh: bool = False
    ) -> Connection:
        """A connection on which the head of the answer has come."""
        connection = None if fresh else self._pool.reuse(route.origin)
        if connection is not None:
            try:
                return await _begin(connection, request, patience)
            except BackendFailed:
                if not connection.is_stale:
                    raise
        return await _begin(await self._pool.connect(route), request, patience)


def _reply(connection: Connection, body: ByteStream) -> Reply:
    return Reply(connection.status, proxy_headers.for_client(connection.headers), body)


def _proxied(connection: Connection, release: Release, wire: WireFormat, meter: TokenMeter) -> ProxiedBody:
    encoding = proxy_headers.value_of(connection.headers, b"content-encoding") or b"identity"
    return ProxiedBody(
        connection,
        release,
        wire=wire,
        meter=meter,
        is_events=_is_events(connection),
        encoded=encoding.lower() != b"identity",
    )


def _is_events(connection: Connection) -> bool:
    type_ = proxy_headers.value_of(connection.headers, b"content-type") or b""
    return type_.lower().startswith(b"text/event-stream")


async def _begin(connection: Connection, request: bytes, patience: Patience) -> Connection:
    try:
        connection.send(request, patience)
        await connection.head()
        if 300 <= connection.status < 400:
            raise BackendFailed(_redirect(connection))
    except BaseException:
        connection.close()
        raise
    return connection


def _redirect(connection: Connection) -> str:
    place = proxy_headers.value_of(connection.headers, b"location")
    where = "" if place is None else " to " + place.partition(b"?")[0][:200].decode("ascii", "replace")
    return f"{connection.peer} answers with a redirect{where} (status {connection.status})"


async def _whole(connection: Connection) -> bytes:
    parts = bytearray()
    while True:
        parts += connection.take()
        if len(parts) > MAX_PROBE:
            raise BackendFailed(f"{connection.peer} answers with more than {MAX_PROBE:,} bytes")
        if connection.is_over:
            break
        await connection.ready()
    parts += connection.take()
    if connection.error is not None:
        raise connection.error
    return bytes(parts)


def _request(
    method: bytes,
    route: Route,
    headers: list[Header],
    key: str | None,
    body: bytes = b"",
) -> bytes:
    """All of a request."""
    lines = [b"%s %s HTTP/1.1\r\nhost: %s\r\n" % (method, route.target, route.host_header)]
    lines += [b"%s: %s\r\n" % header for header in headers]
    if key:
        lines.append(b"authorization: Bearer %s\r\n" % key.encode())
    if route.proxy is not None and route.proxy.authorization and not route.origin.is_tls:
        lines.append(b"proxy-authorization: %s\r\n" % route.proxy.authorization)
    if method == b"POST":
        lines.append(b"content-length: %d\r\n" % len(body))
    return b"".join([*lines, b"\r\n", body])
