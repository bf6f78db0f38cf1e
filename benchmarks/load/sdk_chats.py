"""Chat requests as OpenAI's own client sends them, over connections that are kept.

It looks at what comes back only as far as it must to know that the answer is whole.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.load.client import CHAT_PATH, ClientConnection, RequestFailed, connect, post_request

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


@dataclass(frozen=True, slots=True)
class SdkChat:
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
        return post_request(url, CHAT_PATH, data, SDK_HEADERS)


async def chat(connection: ClientConnection, request: bytes, wanted: SdkChat) -> None:
    """Returns when the answer to ``request`` is whole. Raises `RequestFailed`."""
    pieces: list[bytes] = []
    await connection.post(request, pieces.append)
    check(b"".join(pieces), wanted)


def check(body: bytes, wanted: SdkChat) -> None:
    """Raises `RequestFailed` unless ``body`` is a whole answer to ``wanted``."""
    if not wanted.frames:
        if b'"content":' not in body:
            raise RequestFailed(f"no answer: {body[:400].decode(errors='replace')}")
    elif DONE not in body[-64:]:
        raise RequestFailed(f"the stream ended without [DONE]: {body[-400:].decode(errors='replace')}")
    elif (events := body.count(b"data: ")) < wanted.frames:
        raise RequestFailed(f"{events} events came instead of {wanted.frames}")


@dataclass(slots=True)
class Tally:
    """What a load came to: whole answers, and those that failed, with one reason."""

    answers: int = 0
    errors: int = 0
    reason: str = ""


async def drive(
    url: str,
    wanted: SdkChat,
    connections: int,
    requests: int,
    seconds: float,
) -> Tally:
    """Every connection asks again when it has its answer, so many ``requests`` or ``seconds`` long."""
    request = wanted.request(url)
    end = time.monotonic() + seconds
    remaining = iter(range(requests))
    tally = Tally()

    async def work() -> None:
        connection = await connect(url)
        try:
            for _ in remaining:
                if time.monotonic() > end:
                    return
                await chat(connection, request, wanted)
                tally.answers += 1
        except (RequestFailed, OSError) as error:
            tally.errors += 1
            tally.reason = str(error)
        finally:
            connection.close()

    await asyncio.gather(*(work() for _ in range(connections)))
    return tally
