"""Proxy client: sends calls to upstreams and workers, and brings their answers back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from balancer.call import ByteStream, Reply, ResumePoint, TokenMeter, WireFormat
from balancer.errors import BackendFailed, BackendTimedOut, BadAnswer
from balancer.proxy import headers as proxy_headers
from balancer.proxy.body import ProxiedBody, Release, WorkerBody
from balancer.proxy.connection import Connection, Patience
from balancer.proxy.guard import Guard
from balancer.proxy.headers import Header
from balancer.proxy.hops import hops_header, new_server_id
from balancer.proxy.masking import Mask, mask_for, masked
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
    passed on, since the client has no business there. What an upstream says is passed on without its key.

    ``server_id`` names this server to upstreams (`balancer.proxy.hops`).
    """

    def __init__(
        self,
        *,
        first_byte_timeout: float = 300.0,
        stall_timeout: float = 60.0,
        connect_timeout: float = 5.0,
        proxies: Mapping[str, str] | None = None,
    ) -> None:
        self.server_id = new_server_id()
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
        hops: Sequence[str] = (),
        guard: Guard | None = None,
    ) -> Reply:
        """Send ``body`` to an upstream; the reply has any status, and its body is still to come.

        Of the client's ``headers`` those go along that may (`for_upstream`); ``key`` is the upstream's own,
        ``hops`` the servers that the request came through. ``meter`` counts the tokens that pass, as far as
        ``wire`` can tell. Raises `BackendFailed` if there is no answer.
        """
        headers = tuple(headers)
        encoding = proxy_headers.encoding_for_upstream(headers)
        came_through = (hops_header(hops, self.server_id),)
        connection, release = await self._post(
            url, headers, encoding, body, key, request_id, came_through, guard
        )
        if reason := _no_answer(connection):
            connection.close()
            raise BadAnswer(masked(reason, key))
        mask = mask_for(connection.status, key)
        if mask is not None and connection.status >= 400 and _encoding(connection) != b"identity":
            connection.close()  # the key may be in it, and cannot be seen
            raise BadAnswer(f"{connection.peer} answers with an encoded error (status {connection.status})")
        return _reply(connection, _proxied(connection, release, wire, meter, mask), key)

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
        guard: Guard | None = None,
    ) -> tuple[Connection, Release]:
        route = self._routes.to(url)
        allowed = [*proxy_headers.for_upstream(headers), (b"accept-encoding", encoding), *more]
        if request_id is not None:
            allowed.append((b"x-request-id", request_id.encode()))
        request = _request(b"POST", route, allowed, key, body)
        connection = await self._exchange(route, request, self._patience, key, guard)
        return connection, lambda used: self._pool.give_back(used, route.origin)

    async def get(
        self,
        url: str,
        headers: Iterable[Header] = (),
        timeout: float = 5.0,
        *,
        key: str | None = None,
        fresh: bool = False,
        guard: Guard | None = None,
    ) -> tuple[int, bytes]:
        """As `ask`: a document that is there."""
        return await self.ask(b"GET", url, headers, b"", timeout, key=key, fresh=fresh, guard=guard)

    async def ask(
        self,
        method: bytes,
        url: str,
        headers: Iterable[Header],
        body: bytes,
        timeout: float,
        *,
        key: str | None = None,
        fresh: bool = False,
        guard: Guard | None = None,
    ) -> tuple[int, bytes]:
        """Status and body of a small document, within ``timeout`` seconds.

        ``fresh``: on a connection of its own, to see that new ones are taken. Raises `BackendFailed`, also
        if the document is large, and `BackendTimedOut`.
        """
        route = self._routes.to(url)
        allowed = [*proxy_headers.for_upstream(headers), (b"accept-encoding", b"identity")]
        request = _request(method, route, [*allowed, hops_header((), self.server_id)], key, body)
        try:
            async with asyncio.timeout(timeout):
                patience = Patience(timeout, timeout)
                connection = await self._exchange(route, request, patience, key, guard, fresh=fresh)
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
        self,
        route: Route,
        request: bytes,
        patience: Patience,
        key: str | None,
        guard: Guard | None,
        *,
        fresh: bool = False,
    ) -> Connection:
        """A connection on which the head of the answer has come, which is no redirect."""
        connection = None if fresh else self._pool.reuse(route.origin)
        if connection is not None:
            try:
                return await _begin(connection, request, patience, key)
            except BackendFailed:
                if not connection.is_stale:
                    raise
        return await _begin(await self._pool.connect(route, guard), request, patience, key)


def _reply(connection: Connection, body: ByteStream, key: str | None = None) -> Reply:
    headers = proxy_headers.for_client(connection.headers)
    if key is not None and any(key.encode() in value for _, value in headers):
        headers = [(name, masked(value.decode("latin-1"), key).encode("latin-1")) for name, value in headers]
    return Reply(connection.status, headers, body)


def _proxied(
    connection: Connection, release: Release, wire: WireFormat, meter: TokenMeter, mask: Mask | None = None
) -> ProxiedBody:
    return ProxiedBody(
        connection,
        release,
        wire=wire,
        meter=meter,
        is_events=_is_events(connection),
        encoded=_encoding(connection) != b"identity",
        mask=mask,
    )


def _no_answer(connection: Connection) -> str:
    """Why a success is none of an API: it is a page, such as those of portals and of servers in front."""
    type_ = proxy_headers.value_of(connection.headers, b"content-type")
    if connection.status >= 400 or type_ is None or proxy_headers.is_data(type_):
        return ""
    return f"{connection.peer} answers with {type_.decode('latin-1')[:100]!r} (status {connection.status})"


def _encoding(connection: Connection) -> bytes:
    return (proxy_headers.value_of(connection.headers, b"content-encoding") or b"identity").lower()


def _is_events(connection: Connection) -> bool:
    return proxy_headers.is_events(connection.headers)


async def _begin(connection: Connection, request: bytes, patience: Patience, key: str | None) -> Connection:
    try:
        connection.send(request, patience)
        await connection.head()
        if 300 <= connection.status < 400:
            raise BadAnswer(_redirect(connection, key))
    except BaseException:
        connection.close()
        raise
    return connection


def _redirect(connection: Connection, key: str | None) -> str:
    place = proxy_headers.value_of(connection.headers, b"location")
    where = "" if place is None else " to " + _shown(masked(place.decode("ascii", "replace"), key))
    return f"{connection.peer} answers with a redirect{where} (status {connection.status})"


def _shown(url: str) -> str:
    """The begin of a URL that an upstream gave, without its credentials and its query."""
    scheme, separator, rest = url.partition("?")[0].rpartition("//")
    host, slash, path = rest.partition("/")
    return "".join((scheme, separator, host.rpartition("@")[2], slash, path))[:200]


async def _whole(connection: Connection) -> bytes:
    parts = bytearray()
    while True:
        parts += connection.take()
        if len(parts) > MAX_PROBE:
            raise BadAnswer(f"{connection.peer} answers with more than {MAX_PROBE:,} bytes")
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
