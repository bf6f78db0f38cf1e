"""Fetching of media from URLs in requests: from addresses that MEDIA_URLS allows, and within limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

import httpx

from app import __version__
from app.media.addresses import SETTING, MediaGuard
from balancer.errors import BackendFailed, BadAnswer
from balancer.proxy.connection import Connection, Patience
from balancer.proxy.guard import NotAllowed
from balancer.proxy.headers import value_of
from balancer.proxy.pool import ConnectionPool
from balancer.proxy.route import Route, Routes
from engines.errors import RequestError
from engines.media import MOST_BYTES

SECONDS = 5.0
"""For one file, from the look-up of its host's name on."""

LONGEST_URL = 8192
# At once, of all requests.
MOST_FETCHES = 32

_PATIENCE = Patience(SECONDS, SECONDS)

Took = Callable[[int], None]
"""Told of each piece that came, in bytes; what it raises ends the fetch."""


class MediaFetcher:
    """Fetches files for requests. A host's name is looked up once, and the connection goes to the very
    address that was checked, so that no second answer of its DNS server counts (rebinding).

    ``proxies``: forward proxies as `Routes` wants them; they too are sent to the checked address.
    """

    def __init__(
        self, sources: str, proxies: Mapping[str, str] | None = None, *, seconds: float = SECONDS
    ) -> None:
        """``sources`` is what MEDIA_URLS says."""
        self._guard = MediaGuard(sources)
        self._routes = Routes(proxies)
        self._pool = ConnectionPool(seconds)
        self._seconds = seconds
        self._turn = asyncio.Semaphore(MOST_FETCHES)

    async def fetch(self, url: str, param: str, took: Took) -> bytes:
        """What is at ``url``. Raises `RequestError`, which names ``param``."""
        if self._guard.allows_none:
            raise RequestError(
                f"this server fetches nothing from URLs ({SETTING}): send the content as a data URL", param
            )
        route = self._route(url, param)
        host = route.origin.host
        async with self._turn:
            try:
                async with asyncio.timeout(self._seconds):
                    return await self._get(route, param, took)
            except TimeoutError:
                message = f"{host} did not send the file within {self._seconds:g} s"
            except NotAllowed:
                # To what the name leads is not told: it may be a name of this server's own network.
                message = (
                    f"nothing is fetched from {host}: it is at no address of the internet, or of the kind "
                    f"that this server allows ({SETTING}). Send the content as a data URL"
                )
            except BackendFailed as error:
                message = f"the file cannot be fetched: {error}"
            except (OSError, UnicodeError):
                message = f"{host} is not known: its name has no address"
        raise RequestError(message, param)

    def close(self) -> None:
        """Drop what is being fetched."""
        self._pool.close()

    def _route(self, url: str, param: str) -> Route:
        text = url.strip()
        if len(text) > LONGEST_URL:
            raise RequestError(f"a URL may have {LONGEST_URL} characters at most", param)
        try:
            parsed = httpx.URL(text)
            if parsed.scheme in ("https", "http") and parsed.host and not parsed.userinfo:
                return self._routes.to(str(parsed.copy_with(fragment=None)))
        except (httpx.InvalidURL, ValueError, BackendFailed):
            pass
        raise RequestError(
            f"{text[:100]!r} is no address to fetch from: give a data URL (data:image/png;base64,…) or an "
            "https URL without a user's name",
            param,
        )

    async def _get(self, route: Route, param: str, took: Took) -> bytes:
        connection = await self._connect(route)
        try:
            connection.send(_request(route), _PATIENCE)
            await connection.head()
            _check_head(connection, param)
            return await _body(connection, param, took)
        finally:
            connection.close()

    async def _connect(self, route: Route) -> Connection:
        """To the first address that takes it. Which addresses there are is not told in errors."""
        for address in await self._guard.addresses(route.origin):
            pinned = _pinned(route, address)
            try:
                connection = await self._pool.connect(pinned)
            except BadAnswer as error:
                raise BadAnswer(str(error).replace(str(pinned.origin), str(route.origin))) from None
            except BackendFailed:
                continue
            connection.peer = str(route.origin)
            return connection
        raise BackendFailed(f"{route.origin} cannot be reached")


def _pinned(route: Route, address: str) -> Route:
    """``route``, of which nobody looks up the name any more; TLS still asks for a certificate of it."""
    origin = replace(route.origin, host=address)
    target = route.target
    if route.proxy is not None and not origin.is_tls:
        path = target[len(b"http://") + len(route.host_header) :]
        target = f"http://{origin}".encode() + path
    return replace(route, origin=origin, target=target, server_name=route.origin.host)


def _request(route: Route) -> bytes:
    lines = [
        b"GET %s HTTP/1.1" % route.target,
        b"host: %s" % route.host_header,
        b"user-agent: Enginehouse/%s" % __version__.encode(),
        b"accept: image/*, audio/*, */*;q=0.5",
        b"accept-encoding: identity",
        b"connection: close",
    ]
    return b"\r\n".join([*lines, b"", b""])


def _check_head(connection: Connection, param: str) -> None:
    status, headers = connection.status, connection.headers
    if 300 <= status < 400:
        raise RequestError("the URL is a redirect, which is not followed: send the one it leads to", param)
    if status != 200:
        raise RequestError(f"the URL answers with status {status}, not with a file", param)
    if (value_of(headers, b"content-encoding") or b"identity").lower() != b"identity":
        raise RequestError("the URL answers with an encoded file, which is not read", param)
    length = value_of(headers, b"content-length")
    if length is not None and length.isdigit() and int(length) > MOST_BYTES:
        raise _too_large(param)


async def _body(connection: Connection, param: str, took: Took) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        is_over = connection.is_over
        if piece := connection.take():
            parts.append(piece)
            size += len(piece)
            if size > MOST_BYTES:
                raise _too_large(param)
            took(len(piece))
        elif is_over:
            break
        else:
            await connection.ready()
    if connection.error is not None:
        raise connection.error
    return b"".join(parts)


def _too_large(param: str) -> RequestError:
    return RequestError(f"the file has more than {MOST_BYTES:,} bytes", param)
