"""The sequences of one task, merged into one stream of (choice index, chunk)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from app.inference.outcome import RequestRecord
from engines.base import Chunk, Engine, GenerationRequest, TokenStream
from engines.errors import EngineError

Item = tuple[int, Chunk]


def start(
    engine: Engine, requests: Sequence[GenerationRequest], record: RequestRecord, *, answers: int
) -> Generation:
    """Queue every request, ``answers`` of them for each prompt; if one is refused, none runs."""
    streams: list[TokenStream] = []
    try:
        streams.extend(map(engine.generate, requests))
    except BaseException:
        for stream in streams:
            stream.close()
        raise
    # Not before: the tokens of a prompt that is refused are nobody's.
    record.started(requests, answers)
    return Generation(streams, record)


class Generation:
    """Streams of one task, merged in the order in which chunks become ready; each chunk is recorded.

    The first failing stream fails the whole. `close` is synchronous and idempotent. The record stays open:
    the task may go on elsewhere, and whoever sends the answer knows how it ended.
    """

    def __init__(self, streams: list[TokenStream], record: RequestRecord) -> None:
        self._streams = streams
        self._record = record
        self._unfinished = len(streams)
        # None: it was closed.
        self._ready: asyncio.Queue[Item | EngineError | None] = asyncio.Queue()
        # One stream is read directly: a task and a queue for each would double its cost.
        self._pumps = [
            asyncio.create_task(self._pump(i, stream)) for i, stream in enumerate(streams) if len(streams) > 1
        ]

    @property
    def record(self) -> RequestRecord:
        return self._record

    @property
    def finished(self) -> bool:
        """Whether every sequence gave its last chunk."""
        return not self._unfinished

    def __aiter__(self) -> Generation:
        return self

    async def __anext__(self) -> Item:
        # One coroutine a chunk and no more: this runs for every token of every stream.
        try:
            if self._pumps:
                index, chunk = await self._next_of_many()
            else:
                index, chunk = 0, await self._streams[0].__anext__()
        except EngineError:
            self.close()
            raise
        self._record.chunk(index, chunk)
        if chunk.finish_reason is not None:
            self._unfinished -= 1
        return index, chunk

    def close(self) -> None:
        for stream in self._streams:
            stream.close()
        for pump in self._pumps:
            pump.cancel()
        self._ready.put_nowait(None)

    async def _next_of_many(self) -> Item:
        item = None if self.finished else await self._ready.get()
        if isinstance(item, EngineError):
            raise item
        if item is None:
            self.close()
            raise StopAsyncIteration
        return item

    async def _pump(self, index: int, stream: TokenStream) -> None:
        try:
            async for chunk in stream:
                self._ready.put_nowait((index, chunk))
        except EngineError as error:
            self._ready.put_nowait(error)
