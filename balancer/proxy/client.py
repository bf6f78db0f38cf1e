"""The HTTP client for upstreams and workers: calls out, answers back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from balancer.call import ByteStream, Reply, ResumePoint, TokenMeter, WireFormat
from balancer.errors import BackendFailed
from balancer.proxy import headers as relay_headers
from balancer.proxy.body import ProxiedBody, Release, WorkerBody
from balancer.proxy.connection import Connection, Patience
from balancer.proxy.headers import Header
from balancer.proxy.pool import ConnectionPool, Origin, Target, target_of
from balancer.workers.protocol import worker_request

# A probe's answer that is longer is cut here, in bytes.
MAX_PROBE = 4 * 1024 * 1024


class ProxyClient:
    """Owner of all connections to upstreams and workers. One for the whole server.

    Time-outs are in seconds: ``first_byte_timeout`` until the first byte of an answer's body, of which
    servers send the headers before they have anything to say; ``stall_timeout`` between the bytes after it,
    while the client is ready for more.
    """

    def __init__(
        self,
        *,
        first_byte_timeout: float = 300.0,
        stall_timeout: float = 60.0,
        connect_timeout: float = 5.0,
    ) -> None:
        self._patience = Patience(first_byte_timeout, stall_timeout)
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

        Of the client's ``headers`` those go along that may (`balancer.proxy.headers`); ``key`` is the
        upstream's own. ``meter`` counts the tokens that pass, as far as ``wire`` can tell. Raises
        `BackendFailed` if there is no answer.
        """
        connection, release = await self._post(url, _allowed(headers, request_id), body, key)
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
        connection, release = await self._post(url, [*_allowed(headers, request_id), *protocol], body, key)
        if _is_events(connection):
            return _reply(connection, WorkerBody(connection, release, meter=meter, begun=resume_point))
        return _reply(connection, _proxied(connection, release, wire, meter))

    async def _post(
        self, url: str, headers: list[Header], body: bytes, key: str | None
    ) -> tuple[Connection, Release]:
        target = target_of(url)
        request = _request(b"POST", target, headers, key, body)
        connection = await self._exchange(target.origin, request, self._patience)
        return connection, lambda used: self._pool.give_back(used, target.origin)

    async def get(
        self, url: str, headers: Iterable[Header] = (), timeout: float = 5.0, *, key: str | None = None
    ) -> tuple[int, bytes]:
        """Status and body of a small document. Raises `BackendFailed`, also if it is large."""
        target = target_of(url)
        request = _request(b"GET", target, relay_headers.for_upstream(headers), key)
        try:
            async with asyncio.timeout(timeout):
                connection = await self._exchange(target.origin, request, Patience(timeout, timeout))
                try:
                    return connection.status, await _whole(connection)
                finally:
                    self._pool.give_back(connection, target.origin)
        except TimeoutError:
            raise BackendFailed(f"{target.origin} gave no answer within {timeout:g} s") from None

    async def close(self) -> None:
        """Drop all connections."""
        self._pool.close()
        await asyncio.sleep(0)  # they are lost in the loop's next turn

    async def _exchange(self, origin: Origin, request: bytes, patience: Patience) -> Connection:
        """A connection on which the head of the answer has come."""
        connection = self._pool.reuse(origin)
        if connection is not None:
            try:
                return await _begin(connection, request, patience)
            except BackendFailed:
                if not connection.is_stale:
                    raise
        return await _begin(await self._pool.connect(origin), request, patience)


def _allowed(headers: Iterable[Header], request_id: str | None) -> list[Header]:
    allowed = relay_headers.for_upstream(headers)
    return allowed if request_id is None else [*allowed, (b"x-request-id", request_id.encode())]


def _reply(connection: Connection, body: ByteStream) -> Reply:
    return Reply(connection.status, relay_headers.for_client(connection.headers), body)


def _proxied(connection: Connection, release: Release, wire: WireFormat, meter: TokenMeter) -> ProxiedBody:
    encoding = relay_headers.value_of(connection.headers, b"content-encoding") or b"identity"
    return ProxiedBody(
        connection,
        release,
        wire=wire,
        meter=meter,
        is_events=_is_events(connection),
        encoded=encoding.lower() != b"identity",
    )


def _is_events(connection: Connection) -> bool:
    type_ = relay_headers.value_of(connection.headers, b"content-type") or b""
    return type_.lower().startswith(b"text/event-stream")


async def _begin(connection: Connection, request: bytes, patience: Patience) -> Connection:
    try:
        connection.send(request, patience)
        await connection.head()
    except BaseException:
        connection.close()
        raise
    return connection


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
    target: Target,
    headers: list[Header],
    key: str | None,
    body: bytes = b"",
) -> bytes:
    """All of a request."""
    lines = [b"%s: %s\r\n" % header for header in headers]
    if key:
        lines.append(b"authorization: Bearer %s\r\n" % key.encode())
    if method == b"POST":
        lines.append(b"content-length: %d\r\n" % len(body))
    start = b"%s %s HTTP/1.1\r\nhost: %s\r\naccept-encoding: identity\r\n"
    return b"".join([start % (method, target.path, target.host_header), *lines, b"\r\n", body])
