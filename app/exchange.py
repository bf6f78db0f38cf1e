"""One call from the balancer to the client, with a watch on the client's side of the connection."""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.connection import while_connected
from app.errors import to_api_error
from app.telemetry.inference import InferenceRecord
from balancer.backend import Call, Lease, Reply
from balancer.balancer import Balancer


class Exchange(Response):
    """Acquires a backend, runs the call there and sends what comes.

    A client that disconnects at any point (queued, in prefill, mid-answer) releases everything.
    """

    def __init__(self, balancer: Balancer, call: Call, record: InferenceRecord) -> None:
        super().__init__()
        self._balancer = balancer
        self._call = call
        self._record = record
        self._lease: Lease | None = None
        self._reply: Reply | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # An error from before the first byte comes out of here and becomes an answer.
        await while_connected(receive, self._serve(send), self._release)

    async def _serve(self, send: Send) -> None:
        try:
            self._lease = await self._balancer.acquire(self._call)
            self._reply = reply = await self._lease.backend.run(self._call)
            await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
            async for data in reply.body:
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except Exception as error:
            refused = to_api_error(error).status < 500
            self._record.end("refused" if refused else "error", str(error))
            raise
        finally:
            self._release()

    def _release(self) -> None:
        if self._reply is not None:
            self._reply.body.close()
        if self._lease is not None:
            self._lease.release()
        self._record.end("aborted")  # unless it ended otherwise before
