"""An upstream in this process that streams as fast as it is read, and notes when its clients leave it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

MODEL = "endless"
SILENT = "say nothing"
"""A prompt that is not answered: as one that is still being prefilled."""

_CHUNK = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1769000000, "model": MODEL}
_MODELS = {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "chaos"}]}
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


@dataclass(slots=True)
class Visit:
    """One request: the bytes it was sent, and when its client left (`time.perf_counter`)."""

    sent: int = 0
    left: asyncio.Future[float] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class EndlessUpstream:
    """Answers as many tokens as are asked for."""

    def __init__(self) -> None:
        self.visits: list[Visit] = []

    @classmethod
    @asynccontextmanager
    async def listening(cls) -> AsyncIterator[tuple[EndlessUpstream, str]]:
        """The upstream and its base URL."""
        upstream = cls()
        server = await asyncio.start_server(upstream._serve, "127.0.0.1", 0)
        try:
            yield upstream, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"POST"):
                writer.write(_document(_MODELS))
                await writer.drain()
                return
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            await self._answer(json.loads(await reader.readexactly(length)), reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the visit says when it left
        finally:
            writer.transport.abort()

    async def _answer(
        self, wanted: dict[str, object], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        visit = Visit()
        self.visits.append(visit)
        writing = asyncio.create_task(_write(wanted, writer, visit))
        with suppress(OSError):
            await reader.read()  # nothing more comes: its end is the client's
        visit.left.set_result(time.perf_counter())
        writing.cancel()


async def _write(wanted: dict[str, object], writer: asyncio.StreamWriter, visit: Visit) -> None:
    if SILENT in json.dumps(wanted["messages"]):
        return
    count = wanted["max_tokens"]
    assert isinstance(count, int)
    usage = {"prompt_tokens": 1, "completion_tokens": count, "total_tokens": count + 1}
    text, end = _event({"content": " word"}), _event({}, "length")
    last = b"data: " + json.dumps({**_CHUNK, "choices": [], "usage": usage}).encode() + b"\n\n"
    with suppress(OSError):
        await _send(writer, visit, _HEAD + _event({"role": "assistant", "content": ""}))
        for _ in range(count):
            await _send(writer, visit, text)
            await asyncio.sleep(0)
        await _send(writer, visit, end + last + b"data: [DONE]\n\n")
    writer.write_eof()


async def _send(writer: asyncio.StreamWriter, visit: Visit, data: bytes) -> None:
    writer.write(data)
    await writer.drain()
    visit.sent += len(data)


def _event(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({**_CHUNK, "choices": [choice]}).encode() + b"\n\n"


def _document(payload: object) -> bytes:
    body = json.dumps(payload).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + b"connection: close\r\n\r\n" + body
