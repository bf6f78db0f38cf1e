"""Server-sent events of management routes: progress and changes of state."""

from __future__ import annotations

import asyncio
from typing import Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.convert.answers import sse
from app.errors import error_body, to_api_error
from app.inference.disconnect import while_connected
from app.inference.reply import SSE_HEADERS

# Proxies close connections that are silent for long.
PING_SECONDS = 15.0
PING = b": ping\n\n"


class Events(Protocol):
    """What there is to tell, the bytes of one event at a time. ``close`` is synchronous and idempotent."""

    def __aiter__(self) -> Events: ...

    async def __anext__(self) -> bytes: ...

    def close(self) -> None: ...


class EventResponse(Response):
    """Sends events until they end or the client leaves. An error becomes the last event."""

    def __init__(self, events: Events, ping_seconds: float = PING_SECONDS) -> None:
        super().__init__()
        self._events = events
        self._ping_seconds = ping_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await while_connected(receive, self._serve(send), self._events.close)

    async def _serve(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(SSE_HEADERS)})
        try:
            await self._forward(send)
        except Exception as error:
            await _body(send, b"event: error\n" + sse(error_body(to_api_error(error))))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _forward(self, send: Send) -> None:
        following = asyncio.ensure_future(anext(self._events, None))
        try:
            while True:
                await asyncio.wait((following,), timeout=self._ping_seconds)
                if not following.done():
                    await _body(send, PING)
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
