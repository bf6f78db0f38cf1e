"""One call from the balancer to the client, with a watch on the client's side of the connection."""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.errors import to_api_error
from app.inference.disconnect import while_connected
from app.inference.reply import error_event
from app.telemetry.inference import InferenceRecord
from app.telemetry.logs import get_logger
from app.telemetry.metrics import Outcome
from balancer.call import ByteStream, Call, Reply
from balancer.dispatch import FAILURES, Dispatch

log = get_logger("http")

BACKEND_HEADER = b"x-enginehouse-backend"


class InferenceResponse(Response):
    """Acquires a backend, runs the call there and sends what comes.

    A client that disconnects at any point (queued, in prefill, mid-answer) releases everything.
    ``tells_errors`` False cuts the connection where a stream breaks off, for a server that goes on with it
    elsewhere.
    """

    def __init__(
        self, serving: Dispatch, call: Call, record: InferenceRecord, *, tells_errors: bool = True
    ) -> None:
        super().__init__()
        self._serving = serving
        self._call = call
        self._record = record
        self._tells_errors = tells_errors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # An error from before the first byte comes out of here and becomes an answer.
        await while_connected(receive, self._serve(send), self._release)

    async def _serve(self, send: Send) -> None:
        try:
            reply, first = await self._serving.open()
            if await self._answer(send, reply, first):
                self._record.end(_outcome(reply.status))
        except Exception as error:
            refused = to_api_error(error).status < 500
            self._record.end("refused" if refused else "error", str(error))
            raise
        finally:
            self._release()

    async def _answer(self, send: Send, reply: Reply, first: bytes) -> bool:
        """Send the whole reply; False if it broke off and cannot go on."""
        backend = (BACKEND_HEADER, self._serving.backend.encode("latin-1", "replace"))
        headers = [*reply.headers, backend]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        if reply.status == 200 and self._call.stream:
            self._record.began()
        body, data = reply.body, first
        while True:
            try:
                await self._forward(send, body, data)
                break
            except FAILURES as failure:
                try:
                    body, data = await self._serving.go_on(failure)
                except FAILURES:
                    await self._break_off(send, failure)
                    return False
        self._record.told(body.usage())
        self._serving.finish()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return True

    async def _forward(self, send: Send, body: ByteStream, data: bytes) -> None:
        if data:
            await send({"type": "http.response.body", "body": data, "more_body": True})
        async for data in body:
            await send({"type": "http.response.body", "body": data, "more_body": True})

    async def _break_off(self, send: Send, failure: Exception) -> None:
        """The status was sent, so a stream says it in its last event. Returning without an end cuts the
        connection: a body that is cut must not pass for a whole one."""
        log.warning("answer_broke_off", request_id=self._call.request_id, error=str(failure))
        self._record.end("error", str(failure))
        if self._call.stream and self._tells_errors:
            # What an upstream sent may end in the middle of an event.
            event = b"\n\n" + error_event(failure)
            await send({"type": "http.response.body", "body": event, "more_body": False})

    def _release(self) -> None:
        self._serving.close()
        self._record.end("aborted")  # unless it ended otherwise before


def _outcome(status: int) -> Outcome:
    if status < 400:
        return "finished"
    return "refused" if status < 500 else "error"
