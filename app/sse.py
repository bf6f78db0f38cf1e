"""Server-sent events: their bytes, and a response that sends them until they end or the client leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.errors import ApiError, error_body, to_api_error
from app.inference.disconnect import while_connected

HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would otherwise collect events
)

# Proxies close connections that are silent for long.
PING_SECONDS = 15.0
PING = b": ping\n\n"

# json.dumps would make an encoder for every call that does not use its defaults.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def to_json(value: Any) -> bytes:
    return _encode(value).encode("utf-8", "replace")


def sse(value: Any, event: str | None = None) -> bytes:
    """One server-sent event with ``value`` as JSON; ``event`` is its type, if it has one."""
    name = b"" if event is None else b"event: %s\n" % event.encode()
    return name + b"data: " + to_json(value) + b"\n\n"


class Events(Protocol):
    """A source of events, the bytes of one at a time. ``close`` is synchronous and idempotent."""

    def __aiter__(self) -> Events: ...

    async def __anext__(self) -> bytes: ...

    def close(self) -> None: ...


class EventResponse(Response):
    """A stream of events, until they end or the client leaves. An error becomes the last event.

    ``head`` are its headers, and ``ping`` is what says that it goes on, if anything does.
    """

    head: ClassVar[Sequence[tuple[bytes, bytes]]] = HEADERS
    ping: ClassVar[bytes] = PING

    def __init__(self, events: Events, ping_seconds: float = PING_SECONDS) -> None:
        super().__init__()
        self._events = events
        self._ping_seconds = ping_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await while_connected(receive, self._serve(send), self._events.close)

    async def _serve(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(self.head)})
        try:
            await self._forward(send)
        except Exception as error:
            await _body(send, self._failure(to_api_error(error)))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _failure(self, error: ApiError) -> bytes:
        return sse(error_body(error), "error")

    async def _forward(self, send: Send) -> None:
        following = asyncio.ensure_future(anext(self._events, None))
        try:
            while True:
                await asyncio.wait((following,), timeout=self._ping_seconds)
                if not following.done():
                    await _body(send, self.ping)
                    continue
                event = following.result()
                if event is None:
                    return
                await _body(send, event)
                following = asyncio.ensure_future(anext(self._events, None))
        finally:
            following.cancel()


async def _body(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})
