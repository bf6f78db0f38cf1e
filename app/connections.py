"""Connections: uvicorn's HTTP protocol, with an end to what a client may send and how long it may take.

A head has a largest size. A client that sends nothing, or takes nothing of its answer, is cut after a while;
so is one that does either in drops. What can be answered is answered in the error envelope first.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.body_memory import BodyMemory
from app.departures import PROBE, DepartureWatch
from app.error_responses import error_response
from app.errors import ApiError
from app.http10 import ended_by_closing
from app.paths import is_upload
from app.settings import Settings

# Of the request line and headers together, as of the chunk sizes and trailers between pieces of a body.
MAX_HEAD_BYTES = 64 * 2**10
MAX_HEADERS = 256
MAX_PIPELINED = 16

# Bodies of up to so many bytes do not count among those that are held.
SMALL_BODY = 64 * 2**10

# So much must be sent or taken within a time-out, or all that is left.
STEP = 16 * 2**10

# Bytes of an answer that wait for a slow client here, so that the request's place goes back when its
# generation has ended. Who made more than that waits; a little below, it goes on. Small pieces take three
# times their size here.
HIGH_WATER = 3 * 2**16
LOW_WATER = HIGH_WATER - 4 * STEP

# Looks at a connection within a time-out.
_LOOKS = 4
# Who asked all it wants says so right behind its request; who ends later, in mid-answer, has left.
PROMPT_SECONDS = 0.02
# After a refusal in mid-request: closing at once would reset the connection, and the answer would be lost.
_LINGER_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ClientPatience:
    """Seconds that clients are given: to send `STEP` bytes, to take as many, and between two requests."""

    receive: float
    send: float
    idle: float


def protocol(settings: Settings) -> Any:
    """What uvicorn makes its protocols with. Can be pickled, as reloading needs."""
    patience = ClientPatience(settings.receive_timeout, settings.send_timeout, settings.http_keep_alive)
    bodies = BodyMemory.for_bodies_of(settings.max_request_bytes)
    return partial(EdgeConnection, patience=patience, bodies=bodies)


class Stall:
    """The time for which a mark has not changed; None is a mark of nothing that is waited for."""

    __slots__ = ("_mark", "_since")

    def __init__(self) -> None:
        self._mark: object = None
        self._since = 0.0

    def seconds(self, mark: object, now: float) -> float:
        if mark is None or mark != self._mark:
            self._mark, self._since = mark, now
        return now - self._since


class EdgeConnection(HttpToolsProtocol):
    """A client's connection.

    Nothing is timed for each request: a timer looks at what is waited for, a few times in each time-out.
    """

    def __init__(self, *args: Any, patience: ClientPatience, bodies: BodyMemory, **options: Any) -> None:
        super().__init__(*args, **options)
        self.access_log = False  # requests have a line of their own, without the query, which may be secret
        self._patience = patience
        self._bodies = bodies
        self._body_size = self._held = 0
        self._room = MAX_HEAD_BYTES  # bytes that may come before the parser has something whole
        self._received = 0
        self._asked = 0.0  # when the newest request was here as a whole
        self._heads = 0
        self._in_body = False
        self._keeps_body = True
        self._is_refused = False
        self._refusal: ApiError | None = None
        self._receiving, self._sending = Stall(), Stall()
        self._timer: asyncio.TimerHandle | None = None
        self._departure: DepartureWatch | None = None  # of a client that sends no more

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._departure is not None:
            self._departure.cancel()
        self._release_body()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Whether the connection stays: the client may have asked all it wants, and wait for the answer."""
        has_answer = self._is_busy and self.cycle.response_started
        if self._in_body or not self._is_busy:
            return False
        if has_answer and self.loop.time() - self._asked >= PROMPT_SECONDS:
            return False
        self._departure = DepartureWatch(self.transport, self.transport.abort)
        if not has_answer and not self.pipeline and self.cycle.scope["http_version"] == "1.1":
            self.transport.write(PROBE)
        return True

    def data_received(self, data: bytes) -> None:
        size = len(data)
        self._received += size
        if self._is_refused:
            return
        if size < self._room:
            self._room -= size
            super().data_received(data)
        else:
            self._received_much(memoryview(data))

    def on_headers_complete(self) -> None:
        self._room = MAX_HEAD_BYTES
        self._heads += 1
        if len(self.headers) > MAX_HEADERS:
            self._refusal = _too_large(f"The request has more than {MAX_HEADERS} headers.")
        if self._refusal is not None or len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError("not to be served")
        self._in_body = True
        self._body_size = 0
        super().on_headers_complete()
        # An upload goes to the disk as it comes: the client waits for that, and nothing of it is held.
        self._keeps_body = not is_upload(self.scope["method"], self.scope["path"])
        self.headers = []  # trailers are not among the headers that were let through

    def on_body(self, body: bytes) -> None:
        self._room = MAX_HEAD_BYTES
        self._body_size += len(body)
        if self._keeps_body and self._body_size > SMALL_BODY and self._is_busy:
            self._hold_body(len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._room = MAX_HEAD_BYTES
        self._in_body = False
        self._asked = self.loop.time()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self._held:
            self._release_body()
        super().on_response_complete()
        if self._departure is not None and not self._is_busy:
            self.transport.close()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if cycle.scope["http_version"] == "1.0":
            app = ended_by_closing(app, cycle)
        super()._start_asgi_task(cycle, app)

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal or ApiError(400, "invalid_request_error", msg))

    def _hold_body(self, size: int) -> None:
        self._held += size
        try:
            self._bodies.take(size)
        except ApiError as error:
            self._refusal = error
            raise ValueError("not to be served") from None

    def _release_body(self) -> None:
        self._bodies.give_back(self._held)
        self._held = 0

    def _received_much(self, data: memoryview) -> None:
        while data and not self._is_refused:
            piece, data = data[: self._room], data[self._room :]
            self._room -= len(piece)
            super().data_received(piece)  # type: ignore[arg-type]  # the parser takes any buffer
            if self._room <= 0:
                self._refuse(_too_large(f"The headers are larger than {MAX_HEAD_BYTES} bytes."))

    def _look(self) -> None:
        now, patience = self.loop.time(), self._patience
        if self._sending.seconds(self._unsent(), now) >= patience.send:
            self.transport.abort()
        elif self._receiving.seconds(self._awaited(), now) >= (
            patience.idle if self._is_idle else patience.receive
        ):
            self._give_up()
        else:
            self._timer = self.loop.call_later(min(patience.receive, patience.send) / _LOOKS, self._look)

    def _unsent(self) -> int | None:
        """A mark of the bytes that the client has yet to take. While more are being made, it is not behind
        before they are held back."""
        size = self.transport.get_write_buffer_size()
        if not size or (self._is_busy and not self.flow.write_paused):
            return None
        return size // STEP

    def _awaited(self) -> tuple[int, int] | None:
        """A mark of the bytes that the client has yet to send."""
        if self._in_body:
            if self.flow.read_paused:
                return None
            # The rest of a body that was refused has a time-out in all.
            return self._heads, self._received // STEP if self._is_busy else -1
        if self._is_busy:
            return None
        return self._heads, -1 if self._is_idle else 0

    @property
    def _is_busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _is_idle(self) -> bool:
        """Whether the client had an answer, and nothing came since."""
        return self._heads > 0 and self._room == MAX_HEAD_BYTES and not (self._in_body or self._is_busy)

    def _give_up(self) -> None:
        has_begun = self._in_body or self._room < MAX_HEAD_BYTES
        is_answered = self._in_body and not self._is_busy
        if self._is_refused or self.transport.is_closing() or not has_begun or is_answered:
            self.transport.abort()
            return
        part = "body" if self._in_body else "headers"
        self._refuse(ApiError(408, "request_timeout", f"The request's {part} did not arrive in time."))

    def _refuse(self, error: ApiError) -> None:
        """Read nothing more, and answer unless an answer is on its way; that one is the last then."""
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        cycle = self.cycle
        if self.pipeline:
            # Once the running one has its answer, the connection is idle, and is closed as such.
            self.pipeline.clear()
            return
        if self._is_busy:
            if cycle.response_started or not self._in_body:
                cycle.keep_alive = False
                return
            cycle.disconnected = True
            self._release_body()
            cycle.message_event.set()
        self._unset_keepalive_if_required()
        self.transport.write(_response(error))
        if self.transport.can_write_eof():
            self.transport.write_eof()
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self.loop.call_later(_LINGER_SECONDS, self.transport.abort)
        else:
            self.transport.close()


def _too_large(message: str) -> ApiError:
    return ApiError(431, "headers_too_large", message)


def _response(error: ApiError) -> bytes:
    response = error_response(error, None)
    headers = [b"%s: %s\r\n" % header for header in (*response.raw_headers, (b"connection", b"close"))]
    return b"".join((STATUS_LINE[error.status], *headers, b"\r\n", bytes(response.body)))
