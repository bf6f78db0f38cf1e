"""A tiny OpenAI-like server for tests of clients: fixed answers, real HTTP, no model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Receive, Scope, Send

from support import live

WORDS = ["Hel", "lo ", "wörld", "!"]


@dataclass
class Stub:
    """The server's address, what it was sent, and how it is to misbehave.

    ``mode``: "ok"; "refuse" (503 in the envelope), "loading" (that once, then "ok"), "error" (an error in
    the stream) or "cut" (a stream without [DONE]). ``pause`` is in seconds, before each word.
    ``answers``: what else there is, such as "GET /v1/models/x/status" → status and JSON. Answers to other
    methods than GET come after ``pause``; a list is sent as events.
    """

    url: str = ""
    mode: str = "ok"
    pause: float = 0.0
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)

    def reset(self) -> None:
        self.mode, self.pause = "ok", 0.0
        self.requests.clear()
        self.headers.clear()
        self.answers.clear()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        is_get = scope["method"] == "GET"
        if not is_get:
            self.requests.append(json.loads(await _body(receive) or b"null"))
        known = self.answers.get(f"{scope['method']} {scope['path']}")
        if known is not None:
            await asyncio.sleep(0 if is_get else self.pause)
            await _answer(send, *known)
        elif is_get and scope["path"] == "/v1/models":
            await _json(send, 200, {"object": "list", "data": [{"id": "stub-model"}, {"id": "other"}]})
        elif is_get:
            await _json(send, 404, {"error": {"message": "there is no such route"}})
        elif self.mode in ("refuse", "loading"):
            self.mode = "ok" if self.mode == "loading" else self.mode
            await _json(send, 503, {"error": {"message": "come back later", "code": "model_loading"}})
        else:
            await self._stream(send)

    async def _stream(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _EVENT_STREAM})
        for frame in self._frames():
            await asyncio.sleep(self.pause)
            # Cut in the middle: a client must not rely on frames arriving whole.
            half = len(frame) // 2
            await send({"type": "http.response.body", "body": frame[:half], "more_body": True})
            await send({"type": "http.response.body", "body": frame[half:], "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _frames(self) -> Iterator[bytes]:
        yield _event(choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}}])
        yield b": a comment\n\n"
        for word in WORDS:
            yield _event(choices=[{"index": 0, "delta": {"content": word}}])
        if self.mode == "error":
            yield _event(error={"message": "the engine tripped", "code": "engine_error"})
            return
        yield _event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
        if self.requests[-1].get("stream_options", {}).get("include_usage"):
            yield _event(choices=[], usage={"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12})
        if self.mode != "cut":
            yield b"data: [DONE]\r\n\r\n"


_EVENT_STREAM = [(b"content-type", b"text/event-stream")]


def _event(**content: Any) -> bytes:
    return b"data: " + json.dumps(content, ensure_ascii=False).encode() + b"\n\n"


async def _body(receive: Receive) -> bytes:
    body: bytes = b""
    while True:
        message = await receive()
        body += message["body"]
        if not message.get("more_body"):
            return body


async def _answer(send: Send, status: int, content: Any) -> None:
    if not isinstance(content, list):
        await _json(send, status, content)
        return
    await send({"type": "http.response.start", "status": status, "headers": _EVENT_STREAM})
    body = b"".join(_event(**event) for event in content)
    await send({"type": "http.response.body", "body": body})


async def _json(send: Send, status: int, content: dict[str, Any]) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(content).encode()})


@contextmanager
def running() -> Iterator[Stub]:
    """A stub that listens on a free port of this machine."""
    stub = Stub()
    with live.running(stub) as stub.url:
        yield stub
