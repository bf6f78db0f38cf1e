"""The HTTP client of all benchmarks: one request at a time over a connection, bodies handed on as they come.

It is light, for it shares cores with the server: no pool, no model of headers, no copy of what it reads.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast
from urllib.parse import urlsplit

import httptools

from app.answer_bytes import error_message
from app.cli.stream import StreamedAnswer, StreamReader

CHAT_PATH = "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}
CLOSING = {"Connection": "close", **JSON}


class RequestFailed(Exception):
    """A request got no answer, not a whole one, or an error; the message says which."""


class ClientConnection(asyncio.Protocol):
    """One connection, which is kept between requests. ``begun`` is set when an answer has a first byte."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self._take: Callable[[bytes], None] = _drop
        self._answered: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._refusal = b""
        # Without either header, an answer ends with its connection.
        self._has_length = self._is_complete = False

    async def post(self, request: bytes, take: Callable[[bytes], None]) -> None:
        """Send ``request``; ``take`` is given each part of the body as it is read. Returns after the last.

        Raises `RequestFailed`, and what ``take`` raises.
        """
        if self._transport is None:
            raise RequestFailed("the connection was closed")
        self.begun.clear()
        self._take, self._refusal = take, b""
        self._has_length = self._is_complete = False
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        await self._answered
        if (status := self._parser.get_status_code()) != 200:
            raise RequestFailed(error_message(self._refusal, status))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none of its subclasses

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        is_whole = self.begun.is_set() and not self._has_length
        self._end(None if is_whole else RequestFailed("the connection was closed"))

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
            if self._pieces:
                self._hand_over()
        except httptools.HttpParserError as error:
            self._end(RequestFailed(f"no HTTP: {error}"))
        except Exception as error:
            self._end(error)
        if self._is_complete:
            self._end(None)

    # -- httptools' callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._has_length = True

    def on_body(self, data: bytes) -> None:
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        self._is_complete = True

    def _hand_over(self) -> None:
        data = b"".join(self._pieces)
        self._pieces.clear()
        self.begun.set()
        if self._parser.get_status_code() == 200:
            self._take(data)
        else:
            self._refusal += data

    def _end(self, error: Exception | None) -> None:
        if self._answered is None or self._answered.done():
            return
        if error is None:
            self._answered.set_result(None)
        else:
            self._answered.set_exception(error)


def _drop(data: bytes) -> None:
    """Nobody has asked for ``data``."""


async def connect(url: str) -> ClientConnection:
    """Raises OSError if nobody listens."""
    place = urlsplit(url)
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(ClientConnection, str(place.hostname), place.port or 80)
    return connection


def post_request(url: str, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """A whole HTTP request to the server at ``url``."""
    lines = {"Host": urlsplit(url).netloc, **headers, "Content-Length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def chat_body(model: str, text: str, max_tokens: int, *, ignore_eos: bool = False) -> bytes:
    """The body of a streamed, greedy chat request."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if ignore_eos:
        body["ignore_eos"] = True
    return json.dumps(body).encode()


async def ask(url: str, body: bytes, answer: StreamedAnswer | None = None) -> StreamedAnswer:
    """Send ``body`` over a connection of its own and follow the answer; failures are in it, not raised.

    A given ``answer`` can be watched by others meanwhile. Cancelling closes the connection.
    """
    answer = answer or StreamedAnswer()
    reader = StreamReader(answer)
    request = post_request(url, CHAT_PATH, body, CLOSING)
    answer.sent = time.perf_counter()
    try:
        connection = await connect(url)
        try:
            await connection.post(request, lambda data: reader.feed(data, time.perf_counter()))
        finally:
            connection.close()
    except (OSError, RequestFailed) as error:
        answer.error = f"{type(error).__name__}: {error}" if isinstance(error, OSError) else str(error)
    reader.end(time.perf_counter())
    return answer


async def ask_all(url: str, bodies: Iterable[bytes], connections: int) -> list[StreamedAnswer]:
    """Closed loop: ``connections`` at a time, each sends its next request when its last one ended."""
    remaining = iter(bodies)
    answers: list[StreamedAnswer] = []

    async def work() -> None:
        answers.extend([await ask(url, body) for body in remaining])

    await asyncio.gather(*(work() for _ in range(connections)))
    return answers
