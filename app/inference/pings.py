"""Pings: events that keep a stream alive while nothing comes of it, as in a long prefill."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from starlette.types import Message, Send

from app import sse
from app.errors import ApiError
from balancer.proxy.headers import is_events

_ENDS = (b"\n\n", b"\r\n\r\n")


class Pings:
    """The `Send` of one event stream, which says ``ping`` after every ``wait`` seconds of silence.

    Pings stand between events. Before the first event they open the response, once a backend ``is_served``
    the request: what fails then is an event too, made by ``error_event``.
    """

    def __init__(
        self,
        send: Send,
        ping: bytes,
        *,
        is_served: Callable[[], bool],
        error_event: Callable[[Exception], bytes],
        wait: float = sse.PING_SECONDS,
    ) -> None:
        self._send = send
        self._ping = ping
        self._is_served = is_served
        self._error_event = error_event
        self._wait = wait
        self._clock = asyncio.get_running_loop().time
        self._last = self._clock()
        self._is_between = True
        self._is_sending = self._is_begun = False
        self._pinging: asyncio.Future[None] | None = None
        self._refusal: bytearray | None = None  # the body of an answer that comes too late to be one
        self._status = 200
        self.has_opened = False
        self._timer = asyncio.create_task(self._run())

    async def __call__(self, message: Message) -> None:
        if self._pinging is not None:
            await self._pinging
        if self.has_opened:
            event = self._as_events(message)
            if event is None:
                return
            message = event
        self._is_begun = True
        self._last = self._clock()
        self._is_between = message.get("body", b"\n\n").endswith(_ENDS)
        self._is_sending = True
        await self._send(message)
        self._is_sending = False
        if not message.get("more_body", True):
            self.stop()

    async def fail(self, error: Exception) -> None:
        """End a response that pings have opened."""
        self.stop()
        body = self._error_event(error)
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    def stop(self) -> None:
        self._timer.cancel()

    def _as_events(self, message: Message) -> Message | None:
        """``message`` for a response whose head was sent; None if nothing is to be sent of it."""
        if message["type"] == "http.response.start":
            if message["status"] >= 400 or not is_events(message["headers"]):
                self._status, self._refusal = message["status"], bytearray()
            return None
        if self._refusal is None:
            return message
        self._refusal += message.get("body", b"")
        if message.get("more_body", False):
            return None
        return {**message, "body": self._error_event(_read(self._status, bytes(self._refusal)))}

    async def _run(self) -> None:
        while True:
            if (left := self._last + self._wait - self._clock()) > 0:
                await asyncio.sleep(left)
                continue
            self._last = self._clock()
            if self._is_sending or not self._is_between or not (self._is_begun or self._is_served()):
                continue
            self._pinging = asyncio.get_running_loop().create_future()
            try:
                await self._say()
            finally:
                pinging, self._pinging = self._pinging, None
                pinging.set_result(None)

    async def _say(self) -> None:
        if not self._is_begun:
            self._is_begun = self.has_opened = True
            await self._send({"type": "http.response.start", "status": 200, "headers": list(sse.HEADERS)})
        await self._send({"type": "http.response.body", "body": self._ping, "more_body": True})


def _read(status: int, body: bytes) -> ApiError:
    """The error that a whole answer told."""
    try:
        error = json.loads(body)["error"]
        code = error.get("code") or error["details"]["error_code"]
        return ApiError(status, str(code), str(error["message"]), error.get("param"))
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return ApiError(status, "bad_gateway", "The backend refused the request.")
