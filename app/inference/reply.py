"""A generation as the body of a reply, streamed or whole. Both drain the same stream."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from app.convert.answers import AnswerFormat, sse, to_json
from app.convert.continuation import AnnouncedEvents, usage_comment
from app.errors import error_body, to_api_error
from app.inference.merge import Generation
from balancer.call import Reply, ResumePoint
from balancer.proxy.headers import CREATED_HEADER
from engines.base import Usage

DONE = b"data: [DONE]\n\n"

# Events of one stream keep at least this distance, in seconds: what comes sooner goes into one event.
# Nobody reads faster, and each event costs a system call, which is the larger part of its price.
EVENT_DISTANCE = 0.002

SSE_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would otherwise collect events
]


@dataclass(frozen=True, slots=True)
class StreamForm:
    """What a stream has on top of its answer's events.

    ``include_usage``: an event with the token counts. ``resumable``: from its tokens alone another
    backend could go on with it, as this one does with what was ``begun``. ``announced``: comments that
    tell a server which passes the stream on its tokens, if it is resumable, and its usage.
    """

    include_usage: bool = False
    resumable: bool = False
    begun: ResumePoint | None = None
    announced: bool = False


class EventStream:
    """Server-sent events of a generation, ending with ``[DONE]``.

    Iterating gives bytes as they become ready, always whole events; an empty chunk (text held back)
    gives none. Raises `EngineError` if the generation fails.
    """

    def __init__(self, generation: Generation, format: AnswerFormat, form: StreamForm) -> None:
        self._generation = generation
        self._format = format
        self._form = form
        self._events = AnnouncedEvents(format) if form.announced and form.resumable else format.events()
        self._token_ids: list[int] = []
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
        data = await self._next()
        self._not_before = self._clock() + EVENT_DISTANCE
        return data

    def close(self) -> None:
        self._ended = True
        self._generation.close()

    def resume_point(self) -> ResumePoint | None:
        """Where what was handed out ends; None also if nothing was, so that one would begin anew."""
        form = self._form
        if not form.resumable or self._first is not None:
            return form.begun
        before = form.begun.token_ids if form.begun is not None else ()
        return ResumePoint((*before, *self._token_ids), self._format.created)

    def usage(self) -> Usage | None:
        return None

    async def _next(self) -> bytes:
        """The next events. The last ones bring the end of the stream with them."""
        while True:
            index, chunk = await self._generation.__anext__()
            self._token_ids += chunk.token_ids
            data = self._events.write(index, chunk)
            if chunk.finish_reason is not None and self._generation.finished:
                self._ended = True
                return data + self._closing()
            if data:
                return data

    def _closing(self) -> bytes:
        usage = self._generation.record.usage()
        event = sse(self._format.usage_event(usage)) if self._form.include_usage else b""
        comment = usage_comment(usage) if self._form.announced else b""
        return event + comment + DONE


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

    def resume_point(self) -> ResumePoint | None:
        return None

    def usage(self) -> Usage | None:
        return None


def error_event(error: Exception) -> bytes:
    """The end of a stream that failed when its status had been sent. No ``[DONE]`` follows."""
    return sse(error_body(to_api_error(error)))


async def streamed(generation: Generation, format: AnswerFormat, form: StreamForm) -> Reply:
    """A reply whose events go out as tokens come. Raises `EngineError` if there is not even a first."""
    headers = list(SSE_HEADERS)
    if form.announced and form.resumable:
        headers.append((CREATED_HEADER, str(format.created).encode()))
    return Reply(200, headers, await EventStream(generation, format, form).prime())


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
