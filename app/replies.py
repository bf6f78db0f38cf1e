"""A generation as the body of a reply, streamed or whole. Both drain the same stream."""

from __future__ import annotations

import asyncio

from app.convert.answers import AnswerFormat, sse, to_json
from app.errors import error_body, to_api_error
from app.generation import Generation
from balancer.backend import Reply
from engines.errors import EngineError

DONE = b"data: [DONE]\n\n"

# Events of one stream keep at least this distance, in seconds: what comes sooner goes into one event.
# Nobody reads faster, and each event costs a system call, which is the larger part of its price.
EVENT_DISTANCE = 0.002

SSE_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would otherwise collect events
]


class EventStream:
    """Server-sent events of a generation, ending with ``[DONE]``, or with an error event if it fails.

    Iterating gives bytes as they become ready; an empty chunk (text held back) gives none.
    """

    def __init__(self, generation: Generation, format: AnswerFormat, *, include_usage: bool) -> None:
        self._generation = generation
        self._format = format
        self._include_usage = include_usage
        self._events = format.events()
        self._first: bytes | None = None
        self._ended = False
        self._clock = asyncio.get_running_loop().time
        self._not_before = 0.0

    async def prime(self) -> EventStream:
        """Wait for the first event, so that a failure before it is an answer with a status of its own."""
        try:
            self._first = await self._next()
        except BaseException:
            self.close()
            raise
        return self

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> bytes:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        if self._ended:
            raise StopAsyncIteration
        early = self._not_before - self._clock()
        if early > 0:
            await asyncio.sleep(early)  # meanwhile the stream merges its chunks
        data = await self._next(late=True)
        self._not_before = self._clock() + EVENT_DISTANCE
        return data

    def close(self) -> None:
        self._ended = True
        self._generation.close()

    async def _next(self, late: bool = False) -> bytes:
        """The next event's bytes. A failure is raised, or an event of its own if it comes ``late``."""
        try:
            while True:
                index, chunk = await self._generation.__anext__()
                if data := self._events.write(index, chunk):
                    return data
        except StopAsyncIteration:
            self._ended = True
            return self._closing()
        except EngineError as error:
            self._ended = True
            if not late:
                raise
            return sse(error_body(to_api_error(error)))

    def _closing(self) -> bytes:
        usage = self._generation.record.usage()
        return (sse(self._format.usage_event(usage)) if self._include_usage else b"") + DONE


class WholeBody:
    """A body of one piece, ready from the start."""

    def __init__(self, data: bytes) -> None:
        self._data: bytes | None = data

    def __aiter__(self) -> WholeBody:
        return self

    async def __anext__(self) -> bytes:
        if self._data is None:
            raise StopAsyncIteration
        data, self._data = self._data, None
        return data

    def close(self) -> None:
        self._data = None


async def streamed(generation: Generation, format: AnswerFormat, *, include_usage: bool) -> Reply:
    """A reply whose events go out as tokens come. Raises `EngineError` if there is not even a first."""
    events = EventStream(generation, format, include_usage=include_usage)
    return Reply(200, SSE_HEADERS, await events.prime())


async def whole(generation: Generation, format: AnswerFormat) -> Reply:
    """A reply with the complete answer. Cancelling it aborts the generation."""
    answers = format.answers()
    try:
        async for index, chunk in generation:
            answers[index].add(chunk)
    finally:
        generation.close()
    data = to_json(format.document(answers, generation.record.usage()))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    return Reply(200, headers, WholeBody(data))
