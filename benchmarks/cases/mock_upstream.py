"""``python -m benchmarks.cases.mock_upstream``: an OpenAI-compatible server without a model.

It answers as vLLM's server does, but from bytes made beforehand: a proxy in front of it, which is what is
measured, has nearly all of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, cast

import httptools
import httpx

from app.cli.load import event_loop_factory
from benchmarks.harness.processes import BenchServer, running
from benchmarks.harness.servers import Bench, log_file, own_environment

MODEL = "mock"
WORDS = ("The", "sea", "was", "calm", "and", "the", "ship", "went", "on")
CREATED = 1769000000
BACKLOG = 2048


@dataclass(frozen=True, slots=True)
class ChunkPace:
    """A streamed answer's ``chunks`` of text, and the seconds between two of its events.

    Without a pause each is still written by itself, in turn with those of the other streams.
    """

    chunks: int = 64
    pause: float = 0.0

    @property
    def events(self) -> int:
        """All of a stream's: the role, the text, the reason for its end, the usage and ``[DONE]``."""
        return self.chunks + 4


@contextmanager
def upstream(bench: Bench) -> Iterator[BenchServer]:
    """A fresh one in a process of its own. Raises `BenchError` if it does not start."""

    def command(port: int) -> list[str]:
        return [sys.executable, "-m", "benchmarks.cases.mock_upstream", "--port", str(port)]

    with running("upstream", command, own_environment(), "/health", log_file(bench, "upstream")) as server:
        yield server


def set_pace(server: BenchServer, pace: ChunkPace) -> None:
    """How ``server``, an `upstream`, writes its streams from now on. Raises `httpx.HTTPError`."""
    httpx.put(f"{server.url}/pace", json=asdict(pace), trust_env=False).raise_for_status()


class Answers:
    """All that can be answered, as bytes: a whole answer, and a stream in the pieces that are written."""

    def __init__(self, pace: ChunkPace) -> None:
        self.set(pace)

    def set(self, pace: ChunkPace) -> None:
        self.pause = pace.pause
        chunks = pace.chunks
        usage = {"prompt_tokens": 20, "total_tokens": 20 + chunks, "completion_tokens": chunks}
        self.whole = _reply(_completion("chat.completion", {"choices": [_choice(chunks)], "usage": usage}))
        model = {"id": MODEL, "object": "model", "created": CREATED, "owned_by": "vllm"}
        self.models = _reply({"object": "list", "data": [model]})
        self.healthy = _reply(None)
        self.missing = _reply({"error": {"message": "Not Found", "code": 404}}, "404 Not Found")
        texts = [_text_event({"content": word}) for word in _words(chunks)]
        last = _text_event({}, "stop")
        count = _event(_completion("chat.completion.chunk", {"choices": [], "usage": usage}))
        head = b"HTTP/1.1 200 OK\r\nserver: mock\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
        head += b"transfer-encoding: chunked\r\n\r\n"
        end = _piece(b"data: [DONE]\n\n") + b"0\r\n\r\n"
        first = head + _piece(_text_event({"role": "assistant", "content": ""}))
        self.stream = [first, *map(_piece, texts), _piece(last) + end]
        self.stream_with_usage = [first, *map(_piece, texts), _piece(last) + _piece(count) + end]

    def streamed(self, request: dict[str, Any]) -> Sequence[bytes]:
        """The pieces of the stream that ``request`` asks for."""
        options = request.get("stream_options") or {}
        return self.stream_with_usage if options.get("include_usage") else self.stream


def _words(count: int) -> list[str]:
    return [" " + WORDS[number % len(WORDS)] for number in range(count)]


def _completion(kind: str, rest: dict[str, Any]) -> dict[str, Any]:
    return {"id": "chatcmpl-8f2c61d3a94e4b7f", "object": kind, "created": CREATED, "model": MODEL, **rest}


def _choice(chunks: int) -> dict[str, Any]:
    message = {"role": "assistant", "content": "".join(_words(min(chunks, 16))).strip(), "tool_calls": []}
    return {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop", "stop_reason": None}


def _text_event(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return _event(_completion("chat.completion.chunk", {"choices": [choice]}))


def _event(payload: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(payload, separators=(",", ":")).encode() + b"\n\n"


def _piece(data: bytes) -> bytes:
    """``data`` as a chunk of HTTP's chunked encoding."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def _reply(payload: dict[str, Any] | None, status: str = "200 OK") -> bytes:
    body = json.dumps(payload, separators=(",", ":")).encode() if payload else b""
    head = f"HTTP/1.1 {status}\r\nserver: mock\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


class MockExchange(asyncio.Protocol):
    """One connection: requests one after the other, until the client closes it."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._next: asyncio.Handle | None = None
        self._url = b""
        self._body = b""
        self._parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none of its subclasses

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._next is not None:
            self._next.cancel()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        path, body = self._url, self._body
        self._url = self._body = b""
        if path == b"/v1/chat/completions":
            self._chat(json.loads(body))
        elif path == b"/pace":
            self._answers.set(ChunkPace(**json.loads(body)))
            self._write(self._answers.healthy)
        else:
            known = {b"/v1/models": self._answers.models, b"/health": self._answers.healthy}
            self._write(known.get(path, self._answers.missing))

    def _chat(self, request: dict[str, Any]) -> None:
        if request.get("stream"):
            self._send(iter(self._answers.streamed(request)))
        else:
            self._write(self._answers.whole)

    def _send(self, pieces: Iterator[bytes]) -> None:
        piece = next(pieces, None)
        if piece is None:
            return
        self._write(piece)
        if self._answers.pause:
            self._next = self._loop.call_later(self._answers.pause, self._send, pieces)
        else:
            self._next = self._loop.call_soon(self._send, pieces)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


async def serve(port: int) -> None:
    """Answer on the loopback address until cancelled."""
    answers = Answers(ChunkPace())
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: MockExchange(answers), "127.0.0.1", port, backlog=BACKLOG)
    async with server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cases.mock_upstream", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    port: int = parser.parse_args().port
    with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
        runner.run(serve(port))


if __name__ == "__main__":
    main()
