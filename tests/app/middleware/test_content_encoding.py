"""What decoding a body may cost: memory that all bodies share, and no long hold of the event loop."""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from app.body_memory import MOST_LARGEST_BODIES
from app.errors import ApiError
from app.middleware.content_encoding import SLICE, ContentEncodingMiddleware
from support.clock import counted_turns

LIMIT = 8 * SLICE
SCOPE = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-encoding", b"deflate")]}


class Reader:
    """An app that reads its body, piece by piece, and answers when it is let."""

    def __init__(self) -> None:
        self.pieces: list[int] = []
        self.gate = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert all(name != b"content-encoding" for name, _ in scope["headers"])
        while True:
            message = await receive()
            self.pieces.append(len(message["body"]))
            if not message["more_body"]:
                break
        await self.gate.wait()


def ask(app: Any, size: int) -> asyncio.Task[None]:
    body = zlib.compress(bytes(size))

    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    async def send(message: Message) -> None:
        raise AssertionError("nothing is answered here")

    return asyncio.create_task(app(SCOPE, receive, send))


async def test_a_body_comes_in_slices_between_which_others_run() -> None:
    reader = Reader()
    reader.gate.set()
    async with counted_turns() as turns:
        await ask(ContentEncodingMiddleware(reader, LIMIT), LIMIT)
    assert reader.pieces == [SLICE] * 8 + [0]
    assert turns.count >= 8


async def test_decoded_bodies_have_so_much_memory_together_until_they_are_answered() -> None:
    """A few kilobytes of each request become megabytes, which no length of a body tells of."""
    reader = Reader()
    app = ContentEncodingMiddleware(reader, LIMIT)
    held = [ask(app, LIMIT) for _ in range(MOST_LARGEST_BODIES)]
    while reader.pieces.count(0) < MOST_LARGEST_BODIES:
        await asyncio.sleep(0)
    with pytest.raises(ApiError) as refused:
        await ask(app, SLICE)
    assert (refused.value.status, refused.value.code) == (503, "insufficient_memory")
    reader.gate.set()
    await asyncio.gather(*held)
    await ask(app, LIMIT)
