"""The sequences of one request as one stream of (choice index, chunk)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from app.telemetry.inference import InferenceRecord
from engines.base import Chunk, Engine, GenerationRequest, TokenStream
from engines.errors import EngineError

Item = tuple[int, Chunk]


def start(
    engine: Engine, requests: Sequence[GenerationRequest], record: InferenceRecord, *, answers: int
) -> Generation:
    """Queue every request, ``answers`` of them for each prompt; if one is refused, none runs."""
    record.started(requests, answers)
    streams: list[TokenStream] = []
    try:
        streams.extend(map(engine.generate, requests))
    except BaseException:
        for stream in streams:
            stream.close()
        raise
    return Generation(streams, record)


class Generation:
    """Merges streams in the order in which chunks become ready, and keeps the request's record.

    The first failing stream fails the whole: the record is left open then, as is one of a generation
    that is closed early, for the request may go on elsewhere. `close` is synchronous and idempotent.
    """

    def __init__(self, streams: list[TokenStream], record: InferenceRecord) -> None:
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
    def record(self) -> InferenceRecord:
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
            if self.finished:
                self._record.end("finished")
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
