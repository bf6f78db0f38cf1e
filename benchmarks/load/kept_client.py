"""Chat requests as OpenAI's own client sends them, over connections that are kept.

It looks at what comes back only as far as it must to know that the answer is whole.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import httptools

DONE = b"data: [DONE]"
# What the client puts into every request.
SDK_HEADERS = {
    "Accept-Encoding": "gzip, deflate",
    "Connection": "keep-alive",
    "Accept": "application/json",
    "Content-Type": "application/json",
    "User-Agent": "AsyncOpenAI/Python 2.8.0",
    "X-Stainless-Lang": "python",
    "X-Stainless-Package-Version": "2.8.0",
    "X-Stainless-OS": "Linux",
    "X-Stainless-Arch": "x64",
    "X-Stainless-Runtime": "CPython",
    "X-Stainless-Runtime-Version": "3.11.7",
    "Authorization": "Bearer sk-none",
    "X-Stainless-Async": "async:asyncio",
    "x-stainless-retry-count": "0",
    "x-stainless-read-timeout": "600",
}


class RelayError(Exception):
    """An answer was not whole, or not one; the message says why."""


@dataclass(frozen=True, slots=True)
class Question:
    """A short chat. ``frames`` are the events that its streamed answer has at least; 0: not streamed."""

    model: str
    frames: int = 0

    def request(self, url: str) -> bytes:
        """The whole HTTP request to the server at ``url``."""
        body: dict[str, Any] = {
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
            "model": self.model,
        }
        if self.frames:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        data = json.dumps(body, separators=(",", ":")).encode()
        headers = {"Host": urlsplit(url).netloc, **SDK_HEADERS, "Content-Length": str(len(data))}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n".encode() + data


class Connection(asyncio.Protocol):
    """One kept connection, one request at a time. ``begun`` is set when its answer has a first byte."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self._body = b""
        self._answer: asyncio.Future[bytes] | None = None
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none of its subclasses

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._fail("the connection was closed")

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"no HTTP: {error}")

    def on_body(self, data: bytes) -> None:
        self._body += data
        self.begun.set()

    def on_message_complete(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(self._body)

    def _fail(self, reason: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(RelayError(reason))

    async def ask(self, request: bytes, question: Question) -> None:
        """Returns when the answer is whole. Raises `RelayError`."""
        if self._transport is None:
            raise RelayError("the connection was closed")
        self._body = b""
        self.begun.clear()
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        body = await self._answer
        if (status := self._parser.get_status_code()) != 200:
            raise RelayError(f"HTTP {status}: {body[:400].decode(errors='replace')}")
        check(body, question)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def check(body: bytes, question: Question) -> None:
    """Raises `RelayError` unless ``body`` is a whole answer to ``question``."""
    if not question.frames:
        if b'"content":' not in body:
            raise RelayError(f"no answer: {body[:400].decode(errors='replace')}")
    elif DONE not in body[-64:]:
        raise RelayError(f"the stream ended without [DONE]: {body[-400:].decode(errors='replace')}")
    elif (events := body.count(b"data: ")) < question.frames:
        raise RelayError(f"{events} events came instead of {question.frames}")


async def connect(url: str) -> Connection:
    """Raises OSError if nobody listens."""
    place = urlsplit(url)
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, str(place.hostname), place.port or 80)
    return connection


@dataclass(slots=True)
class Tally:
    """What a load came to: whole answers, and those that failed, with one reason."""

    answers: int = 0
    errors: int = 0
    reason: str = ""


async def drive(
    url: str,
    question: Question,
    connections: int,
    requests: int,
    seconds: float,
) -> Tally:
    """Every connection asks again when it has its answer, so many ``requests`` or ``seconds`` long."""
    request = question.request(url)
    end = time.monotonic() + seconds
    remaining = iter(range(requests))
    tally = Tally()

    async def work() -> None:
        connection = await connect(url)
        try:
            for _ in remaining:
                if time.monotonic() > end:
                    return
                await connection.ask(request, question)
                tally.answers += 1
        except (RelayError, OSError) as error:
            tally.errors += 1
            tally.reason = str(error)
        finally:
            connection.close()

    await asyncio.gather(*(work() for _ in range(connections)))
    return tally
