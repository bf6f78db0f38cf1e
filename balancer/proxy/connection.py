"""Connection: HTTP/1.1 from the client's side, one exchange after the other.

There is a client of our own because the price of a proxy is the price of its client: with aiohttp in its
place the whole server takes some 40 % more CPU an answer (benchmarks/README.md has the figures), and closing
needs no ``await``. The parser is the one that uvicorn uses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import httptools

from balancer.errors import BackendFailed, BackendTimedOut, BadAnswer
from balancer.proxy.headers import Header

# Bytes that are not body and that an answer may have in a row: its headers, with those of interim answers
# (1xx), the extensions of one chunk, or the trailers.
MAX_HEAD = 64 * 1024
# The upstream is left waiting while more bytes than this are not yet fetched.
HIGH_WATER = 64 * 1024

_NO_BODY = (204, 304)


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds until an answer's first body byte, and between its bytes from then on."""

    first_byte: float
    stall: float


class Connection(asyncio.Protocol):
    """One exchange after the other: `send`, `head`, then `take` and `ready` until `is_over`.

    `close` is synchronous and idempotent, and drops the connection at once, whatever is awaited.
    """

    def __init__(self, peer: str, on_lost: Callable[[Connection], None]) -> None:
        self.peer = peer
        self.idle_since = 0.0
        self.error: BackendFailed | None = None
        self.ended = False
        self.status = 0
        self.headers: list[Header] = []
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._patience = Patience(0.0, 0.0)
        self._progress = 0.0
        self._buffer: list[bytes] = []
        self._buffered = self._overhead = 0
        self._paused = self._has_head = self._has_body = self._has_length = False
        self._keep_alive = self._heard = self._stale = False

    # -- one exchange ------------------------------------------------------------------------------

    def send(self, request: bytes, patience: Patience) -> None:
        """Begin an exchange. The last one, if any, has ended."""
        self._parser = httptools.HttpResponseParser(self)
        self.headers = []
        self._buffer = []
        self._buffered = self._overhead = 0
        self.ended = self._has_head = self._has_body = self._has_length = self._keep_alive = self._heard = (
            False
        )
        self._patience = patience
        self._progress = self._loop.time()
        if self._transport is not None:  # else `head` says that it was lost already
            self._transport.write(request)
        self._watch_until(self._progress + patience.first_byte)

    async def head(self) -> None:
        """Return when ``status`` and ``headers`` are there. Raises `BackendFailed`."""
        while not self._has_head:
            if self.error is not None:
                raise self.error
            await self.ready()

    def take(self) -> bytes:
        """All of the body that has come since the last time; empty if nothing has."""
        if not self._buffer:
            return b""
        data = self._buffer[0] if len(self._buffer) == 1 else b"".join(self._buffer)
        self._buffer.clear()
        self._buffered = 0
        self._progress = self._loop.time()
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    @property
    def is_over(self) -> bool:
        """Nothing more will come: the answer ended, or ``error`` says why not."""
        return self.ended or self.error is not None

    @property
    def is_reusable(self) -> bool:
        """Whether the exchange left the connection as it was."""
        return self._transport is not None and self.ended and self._keep_alive and not self._buffer

    @property
    def is_stale(self) -> bool:
        """Whether it was lost before a byte came: a server may close while a request is on its way."""
        return self._stale

    def ready(self) -> asyncio.Future[None]:
        """Done when there is something new: the head, a part of the body, or the end."""
        waiter = self._waiter = self._loop.create_future()
        return waiter

    def close(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        self._fail("was closed")

    # -- asyncio.Protocol --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its type

    def data_received(self, data: bytes) -> None:
        if self._parser is None or self.ended:
            self.close()  # it speaks without being asked
            return
        had_body = self._has_body
        self._heard = True
        self._overhead += len(data)  # until `on_body`
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._break("wants to switch protocols")
        except httptools.HttpParserError as error:
            self._break(f"does not speak HTTP as it should: {error}")
        if self._overhead > MAX_HEAD:
            self._break(f"sent more than {MAX_HEAD:,} bytes of headers")
        if self._has_body and not had_body and not self.is_over:
            self._watch_until(self._loop.time() + self._patience.stall)
        self._hold_back()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._stale = not self._heard and not self.is_over
        # Without a length, the end of the connection is the end of the body.
        if error is None and self._has_head and not self._has_length:
            self._end()
        self._fail("broke off in the middle of its answer" if self._has_head else "closed the connection")
        self._on_lost(self)

    # -- callbacks of the parser: they must not raise ----------------------------------------------

    def on_message_begin(self) -> None:
        if self.ended:  # a second answer to one request
            self._keep_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._has_head:  # trailers, or those of a second answer
            return
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            self._has_length = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        if self._has_head:
            return
        self.status = self._parser.get_status_code()
        if not 100 <= self.status < 600:
            self._break(f"answered with status {self.status:03}")
            return
        if self.status < 200:
            self.headers = []
            self._has_length = False
            return
        self._has_head = True
        if self.status in _NO_BODY:
            self.headers = [header for header in self.headers if header[0] != b"content-length"]

    def on_body(self, data: bytes) -> None:
        if self._has_head and not self.is_over:
            self._has_body = True
            self._buffer.append(data)
            self._buffered += len(data)
            self._overhead = 0

    def on_message_complete(self) -> None:
        assert self._parser is not None
        if self._has_head and not self.ended:
            self._keep_alive = self._parser.should_keep_alive()
            self._end()

    # -- inside ------------------------------------------------------------------------------------

    def _end(self) -> None:
        if self.error is None and not self.ended:
            self.ended = True
            self._finish()

    def _break(self, reason: str, kind: type[BackendFailed] = BadAnswer) -> None:
        """What came is no answer. If the answer itself is whole, only the connection is of no more use."""
        self._keep_alive = False
        self._fail(reason, kind)
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, reason: str, kind: type[BackendFailed] = BackendFailed) -> None:
        if not self.is_over:
            self.error = kind(f"{self.peer} {reason}")
            self._finish()

    def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _hold_back(self) -> None:
        if self._transport is None or self._paused or self.is_over or self._buffered <= HIGH_WATER:
            return
        self._paused = True
        self._transport.pause_reading()

    def _watch_until(self, deadline: float) -> None:
        """One timer for the whole body: it is set anew when it fires, not with every chunk."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        if not self._has_body:
            self._break(f"sent nothing for {self._patience.first_byte:g} s", BackendTimedOut)
            return
        # Progress is what was fetched: as long as something waits for that, the upstream is not to blame.
        deadline = (now if self._buffer else self._progress) + self._patience.stall
        if deadline > now:
            self._watch_until(deadline)
        else:
            seconds = f"{self._patience.stall:g} s"
            self._break(f"stopped in the middle of its answer for {seconds}", BackendTimedOut)
