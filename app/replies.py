"""A generation as the body of a reply, streamed or whole. Both drain the same stream."""

from __future__ import annotations

from app.convert.answers import Answer, AnswerFormat, TextFrames, sse, to_json
from app.errors import error_body, to_api_error
from app.generation import Generation
from balancer.backend import Reply
from engines.base import Chunk
from engines.errors import EngineError

DONE = b"data: [DONE]\n\n"

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
        self._frames = TextFrames(format)
        self._opened: set[int] = set()
        self._first: bytes | None = None
        self._ended = False

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
        try:
            return await self._next()
        except EngineError as error:
            self._ended = True
            return sse(error_body(to_api_error(error)))

    def close(self) -> None:
        self._ended = True
        self._generation.close()

    async def _next(self) -> bytes:
        async for index, chunk in self._generation:
            data = self._events(index, chunk)
            if data:
                return data
        self._ended = True
        usage = sse(self._format.usage_event(self._generation.record.usage())) if self._include_usage else b""
        return usage + DONE

    def _events(self, index: int, chunk: Chunk) -> bytes:
        data = b"" if index in self._opened else self._open(index)
        if chunk.logprobs:
            data += sse(self._format.event(index, chunk.text, chunk.logprobs))
        elif chunk.text:
            data += self._frames.frame(index, chunk.text)
        if chunk.finish_reason is not None:
            # An event of its own: some clients drop text that comes with the finish reason.
            data += sse(self._format.event(index, finish_reason=chunk.finish_reason))
        return data

    def _open(self, index: int) -> bytes:
        self._opened.add(index)
        event = self._format.opening(index)
        return b"" if event is None else sse(event)


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
    answers = [Answer() for _ in range(format.choices)]
    try:
        async for index, chunk in generation:
            answers[index].add(chunk)
    finally:
        generation.close()
    data = to_json(format.document(answers, generation.record.usage()))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    return Reply(200, headers, WholeBody(data))
