"""A body that is written while it is sent: large answers are never made as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from balancer.call import ResumePoint

# Bytes that are sent at once.
FRAME = 64 * 1024


class PiecesBody:
    """The pieces of a document, collected to frames; other requests get their turn between two of them."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._has_begun = False

    def __aiter__(self) -> PiecesBody:
        return self

    async def __anext__(self) -> bytes:
        if self._has_begun:
            await asyncio.sleep(0)
        self._has_begun = True
        frame = bytearray()
        for piece in self._pieces:
            frame += piece
            if len(frame) >= FRAME:
                break
        if not frame:
            raise StopAsyncIteration
        return bytes(frame)

    def close(self) -> None:
        self._pieces = iter(())

    def resume_point(self) -> ResumePoint | None:
        return None
