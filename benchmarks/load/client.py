"""A streaming client that notes when text arrives. It is light, for it shares cores with the server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httptools

from app.cli.client import LineSplitter, error_message, event_data
from app.cli.load import has_text

READ_SIZE = 2**16


@dataclass(slots=True)
class Answer:
    """One streamed answer while it comes. Times are `time.perf_counter` seconds.

    ``arrivals`` has one entry for each read that brought text, however many frames came together, so
    that gaps between entries are what a reader of the text would see.
    """

    sent: float = 0.0
    arrivals: list[float] = field(default_factory=list)
    frames: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    done: bool = False
    error: str | None = None

    @property
    def first(self) -> float | None:
        return self.arrivals[0] if self.arrivals else None

    @property
    def ended(self) -> bool:
        return self.done or self.error is not None


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


async def ask(url: str, body: bytes, answer: Answer | None = None) -> Answer:
    """Send ``body`` over a connection of its own and follow the answer; failures are in it, not raised.

    A given ``answer`` can be watched by others meanwhile. Cancelling closes the connection.
    """
    answer = answer or Answer()
    place = urlsplit(url)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {place.netloc}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    answer.sent = time.perf_counter()
    try:
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        try:
            writer.write(head.encode() + body)
            await _follow(reader, answer)
        finally:
            writer.close()
    except (OSError, httptools.HttpParserError) as error:
        answer.error = f"{type(error).__name__}: {error}"
    if not answer.done and answer.error is None:
        answer.error = "the stream ended without [DONE]"
    return answer


async def _follow(reader: asyncio.StreamReader, answer: Answer) -> None:
    response = _Response()
    splitter = LineSplitter()
    while not response.complete:
        data = await reader.read(READ_SIZE)
        if not data:
            break
        now = time.perf_counter()
        response.parser.feed_data(data)
        if response.parser.get_status_code() == 200:
            _note(splitter.feed(response.take()), now, answer)
    if (status := response.parser.get_status_code()) != 200:
        answer.error = error_message(response.take(), status)


class _Response:
    """Takes HTTP's framing off a response."""

    def __init__(self) -> None:
        self._body: list[bytes] = []
        self.complete = False
        self.parser = httptools.HttpResponseParser(self)

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        self.complete = True

    def take(self) -> bytes:
        """The part of the body that came since the last call."""
        data = b"".join(self._body)
        self._body.clear()
        return data


def _note(lines: Sequence[bytes], now: float, answer: Answer) -> None:
    before = answer.frames
    for line in lines:
        payload = event_data(line)
        if not payload:
            continue
        if payload == b"[DONE]":
            answer.done = True
        elif has_text(payload):
            answer.frames += 1
        else:
            _note_rest(payload, answer)
    if answer.frames > before:
        answer.arrivals.append(now)


def _note_rest(payload: bytes, answer: Answer) -> None:
    event = json.loads(payload)
    if "error" in event:
        answer.error = error_message(payload)
    if usage := event.get("usage"):
        answer.prompt_tokens = usage["prompt_tokens"]
        answer.completion_tokens = usage["completion_tokens"]
