"""The response to an inference request: from the balancer to the client, as long as the client is there."""

from __future__ import annotations

from typing import Protocol

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from app.errors import to_api_error
from app.inference.disconnect import while_connected
from app.inference.ignored import HEADER as IGNORED_HEADER
from app.inference.pings import Pings
from app.inference.pipeline import Inference
from app.inference.translation import Translation
from app.telemetry.logs import get_logger
from balancer.call import ByteStream, Reply
from balancer.dispatch import FAILURES
from balancer.errors import BadAnswer
from balancer.proxy.headers import Header, add_to_list, is_events
from balancer.workers.protocol import error_comment

log = get_logger("http")

BACKEND_HEADER = b"x-enginehouse-backend"


class AnswerObserver(Protocol):
    """Whoever looks at an answer as it passes."""

    def began(self, status: int, *, is_events: bool) -> None:
        """The answer has this status."""
        ...

    def saw(self, data: bytes) -> None:
        """A piece of it was sent."""
        ...

    def ended(self) -> None:
        """It came to its end."""
        ...


class InferenceResponse(Response):
    """Acquires a backend, runs the call there and sends what comes.

    A client that disconnects at any point (queued, in prefill, mid-answer) releases everything.
    """

    def __init__(
        self,
        inference: Inference,
        ignored: str = "",
        observer: AnswerObserver | None = None,
        translation: Translation | None = None,
    ) -> None:
        """``ignored``: the fields of the request that do not count, as `IgnoredFields` tells them.
        ``translation``: the client speaks another API than the answer."""
        super().__init__()
        self._inference = inference
        self._translation = translation
        self._head: Message | None = None  # until it was sent
        self._is_events = False
        self._ignored = ignored
        self._observer = observer
        self._first = self._sent = b""  # the last
        self._pings: Pings | None = None
        self._dispatch = inference.dispatch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # An error from before the first byte comes out of here and becomes an answer.
        await while_connected(receive, self._serve(send), self._release)

    async def _serve(self, send: Send) -> None:
        pings = self._pings = self._pings_to(send)
        try:
            reply, first = await self._inference.open()
            await self._answer(pings or send, reply, first)
        except Exception as error:
            self._inference.end(to_api_error(error).status, str(error))
            if pings is None or not pings.has_opened:
                raise
            await pings.fail(error)
        finally:
            self._release()

    def _pings_to(self, send: Send) -> Pings | None:
        """A worker's parent has its own."""
        inference, dispatch = self._inference, self._dispatch
        ping = inference.call.wire.ping
        if not ping or not inference.call.stream or inference.for_parent:
            return None
        return Pings(
            send,
            ping,
            is_served=lambda: bool(dispatch.backend),
            error_event=lambda error: inference.dialect.error_event(error, b""),
        )

    async def _answer(self, send: Send, reply: Reply, first: bytes) -> None:
        """Send the whole reply, from several backends if one breaks off."""
        self._is_events = is_events(reply.headers)
        backend = (BACKEND_HEADER, self._dispatch.backend.encode("latin-1", "replace"))
        headers = [*reply.headers, backend]
        if self._ignored:
            headers = add_to_list(headers, IGNORED_HEADER, self._ignored.encode())
        await self._start(send, reply.status, headers)
        if self._observer is not None:
            self._observer.began(reply.status, is_events=self._is_events)
        body, data = reply.body, first
        self._first = first
        while True:
            try:
                await self._forward(send, body, data)
                break
            except FAILURES as failure:
                try:
                    body, data = await self._dispatch.resume(failure)
                except FAILURES as last:
                    await self._break_off(send, last)
                    return
        try:
            await self._pass(send, b"", is_end=True)
        except BadAnswer as failure:
            await self._break_off(send, failure)
            return
        self._inference.end(reply.status)
        self._dispatch.finish()
        if self._observer is not None:
            self._observer.ended()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _start(self, send: Send, status: int, headers: list[Header]) -> None:
        """Send the head of the response; of what is translated, it waits for what comes of that."""
        if self._translation is None:
            await send({"type": "http.response.start", "status": status, "headers": headers})
            return
        headers = self._translation.begin(status, headers)
        self._head = {"type": "http.response.start", "status": status, "headers": headers}

    async def _forward(self, send: Send, body: ByteStream, data: bytes) -> None:
        observer = self._observer
        if data:
            await self._pass(send, data)
        async for data in body:
            # As little as can be: this runs for every piece of every stream.
            if self._translation is not None:
                await self._pass(send, data)
                continue
            self._sent = data
            if observer is not None:
                observer.saw(data)
            await send({"type": "http.response.body", "body": data, "more_body": True})

    async def _pass(self, send: Send, data: bytes, *, is_end: bool = False) -> None:
        """Send what the client gets of ``data`` by now, and what is left if it ``is_end``."""
        if self._translation is not None:
            data = self._translation.end() if is_end else self._translation.feed(data)
        if not data:
            return
        if self._head is not None:
            head, self._head = self._head, None
            await send(head)
        self._sent = data
        if self._observer is not None:
            self._observer.saw(data)
        await send({"type": "http.response.body", "body": data, "more_body": True})

    async def _break_off(self, send: Send, failure: Exception) -> None:
        """The status was sent, so an event stream says it in its last event. Returning without an end cuts
        the connection: a body that is cut must not pass for a whole one, and a parent goes on elsewhere."""
        log.warning("answer_broke_off", request_id=self._inference.call.request_id, error=str(failure))
        if self._head is not None:
            raise failure  # nothing was sent: it is an answer of its own
        self._inference.end(500, str(failure))
        if self._translation is not None:
            if data := self._translation.error(failure):
                await send({"type": "http.response.body", "body": data, "more_body": False})
            return
        if not self._is_events:
            return
        if self._inference.for_parent:
            comment = error_comment(str(failure))
            await send({"type": "http.response.body", "body": comment, "more_body": True})
            return
        # What an upstream sent may end in the middle of an event.
        sent = self._sent if self._sent is self._first else self._first + self._sent
        event = b"\n\n" + self._inference.dialect.error_event(failure, sent)
        await send({"type": "http.response.body", "body": event, "more_body": False})

    def _release(self) -> None:
        if self._pings is not None:
            self._pings.stop()
        self._inference.close()
