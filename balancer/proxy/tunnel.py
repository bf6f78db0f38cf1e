"""Tunnels: connections to an https origin through a forward proxy."""

from __future__ import annotations

import asyncio
import re
from typing import cast

from balancer.errors import BackendFailed, BadAnswer
from balancer.proxy.route import ForwardProxy, Origin

# Bytes of headers that a proxy's answer may have.
MAX_HEAD = 16 * 1024

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?: ([ -~]{0,100}))?").match


async def open_tunnel(proxy: ForwardProxy, origin: Origin) -> asyncio.Transport:
    """A connection whose bytes go to ``origin``. Raises `OSError` and `BackendFailed`."""
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_connection(_Connecting, proxy.host, proxy.port)
    try:
        head = await protocol.ask(proxy, origin)
        _check(head, proxy, origin)
    except BaseException:
        protocol.transport.abort()
        raise
    return protocol.transport


def _check(head: bytes, proxy: ForwardProxy, origin: Origin) -> None:
    """Raises `BackendFailed` unless ``head`` is the answer of a proxy that opened the tunnel."""
    match = _STATUS(head)
    if match is None or b"\r\n\r\n" not in head:
        raise BadAnswer(f"the proxy {proxy} does not speak HTTP as it should")
    if not match[1].startswith(b"2"):
        said = b" ".join(filter(None, match.groups())).decode("ascii").strip()
        # A proxy that cannot reach the origin says so with 5xx; anything else is a matter of configuration.
        kind = BackendFailed if match[1].startswith(b"5") else BadAnswer
        raise kind(f"the proxy {proxy} refuses a tunnel to {origin}: {said}")
    if not head.endswith(b"\r\n\r\n"):  # a TLS server does not speak first
        raise BadAnswer(f"the proxy {proxy} sent more than its answer")


class _Connecting(asyncio.Protocol):
    """The connection to the proxy until the tunnel stands."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._head = bytearray()
        self._answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def ask(self, proxy: ForwardProxy, origin: Origin) -> bytes:
        authority = str(origin).encode("ascii")
        request = b"CONNECT %s HTTP/1.1\r\nhost: %s\r\n" % (authority, authority)
        if proxy.authorization:
            request += b"proxy-authorization: %s\r\n" % proxy.authorization
        self.transport.write(request + b"\r\n")
        return await self._answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by its type

    def data_received(self, data: bytes) -> None:
        self._head += data
        if b"\r\n\r\n" in self._head or len(self._head) > MAX_HEAD:
            self._end()

    def connection_lost(self, error: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        """Answer with what has come: whether that is whole, and what it says, is looked at later."""
        if not self._answer.done():
            self._answer.set_result(bytes(self._head))
