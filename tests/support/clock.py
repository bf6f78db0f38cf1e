"""A clock and pauses that stand still until a test moves them, and a count of the event loop's turns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Clock:
    """Calling it gives ``now``, in seconds, as `time.monotonic` would."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Pauses:
    """`sleep` stands in for `asyncio.sleep`: a pause lasts until `end`. ``asked`` are the seconds of each."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self._ended = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)
        self._ended.clear()
        await self._ended.wait()

    async def end(self) -> None:
        """End the pause, and let go on what waited for it."""
        self._ended.set()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


class Turns:
    """How often the event loop came round."""

    count = 0


@asynccontextmanager
async def counted_turns() -> AsyncIterator[Turns]:
    """The turns that others get while the block runs."""
    turns = Turns()

    async def count() -> None:
        while True:
            turns.count += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    try:
        yield turns
    finally:
        counting.cancel()
