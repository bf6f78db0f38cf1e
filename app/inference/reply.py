"""A generation as the body of a reply, streamed or whole. Both drain the same stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from app import sse
from app.inference.answer import Answer
from app.inference.dialect import AnswerWriter
from app.inference.merge import Generation
from balancer.call import Reply, ResumePoint
from balancer.workers import protocol
from engines.base import Usage

# Events of one stream keep at least this distance, in seconds: what comes sooner goes into one event.
# Nobody reads faster, and each event costs a system call, which is the larger part of its price.
EVENT_DISTANCE = 0.002


class EventStream:
    """The events of a generation, up to the dialect's end mark.

    Iterating gives bytes as they become ready, always whole events; an empty chunk (text held back)
    gives none. Raises `EngineError` if the generation fails. ``resumable``: from its tokens alone another
    backend could go on with it, as this one does from ``resume_point``.
    """

    def __init__(
        self,
        generation: Generation,
        writer: AnswerWriter,
        *,
        resumable: bool = False,
        resume_point: ResumePoint | None = None,
    ) -> None:
        self._generation = generation
        self._writer = writer
        self._resumable = resumable
        self._begun = resume_point
        self._opened: set[int] = set()
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
        """The point that the events handed out so far end at; the one they began at while there are none."""
        if not self._resumable or self._first is not None:
            return self._begun
        before = self._begun.token_ids if self._begun is not None else ()
        return ResumePoint((*before, *self._token_ids), self._writer.created)

    async def _next(self) -> bytes:
        """The next events. The last ones bring the end of the stream with them."""
        while True:
            index, chunk = await self._generation.__anext__()
            self._token_ids += chunk.token_ids
            opening = b"" if index in self._opened else self._open(index)
            events = self._writer.write(index, chunk)
            if chunk.finish_reason is not None and self._generation.finished:
                self._ended = True
                return self._last(opening, events, self._generation.record.usage())
            if data := self._piece(opening, events):
                return data

    def _open(self, index: int) -> bytes:
        self._opened.add(index)
        return self._writer.opening(index)

    def _piece(self, opening: bytes, events: bytes) -> bytes:
        return opening + events

    def _last(self, opening: bytes, events: bytes, usage: Usage) -> bytes:
        return opening + events + self._writer.closing(usage)


class CommentedStream(EventStream):
    """The events of a worker, with the comments that its parent asked for (`balancer.workers.protocol`)."""

    _is_begun = False
    _told = 0  # tokens that were told, of `_token_ids`

    def _piece(self, opening: bytes, events: bytes) -> bytes:
        if not (opening or events):
            return b""
        opening = protocol.together_comment(opening) + opening
        if not events:
            return self._begin() + opening
        return self._begin() + opening + protocol.together_comment(events) + self._tokens() + events

    def _last(self, opening: bytes, events: bytes, usage: Usage) -> bytes:
        return b"".join(
            (
                self._begin(),
                protocol.together_comment(opening),
                opening,
                protocol.LAST,
                self._tokens(),
                events,
                self._writer.closing(usage),
                protocol.usage_comment(usage),
                protocol.END,
            )
        )

    def _begin(self) -> bytes:
        if self._is_begun:
            return b""
        self._is_begun = True
        prompt_tokens = self._generation.record.usage().prompt_tokens
        return protocol.begin_comment(prompt_tokens, self._writer.created if self._resumable else None)

    def _tokens(self) -> bytes:
        untold, self._told = self._token_ids[self._told :], len(self._token_ids)
        return protocol.tokens_comment(untold)


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


async def streamed(
    generation: Generation,
    writer: AnswerWriter,
    *,
    resumable: bool = False,
    resume_point: ResumePoint | None = None,
    for_parent: bool = False,
) -> Reply:
    """A reply whose events go out as tokens come; ``for_parent``: with comments.

    Raises `EngineError` if there is not even a first event.
    """
    make = CommentedStream if for_parent else EventStream
    stream = make(generation, writer, resumable=resumable, resume_point=resume_point)
    return Reply(200, list(sse.HEADERS), await stream.prime())


async def whole(
    generation: Generation, writer: AnswerWriter, choose: Callable[[Sequence[Answer]], Sequence[Answer]]
) -> Reply:
    """A reply with the complete answers that ``choose`` leaves. Cancelling it aborts the generation."""
    answers = writer.answers()
    try:
        async for index, chunk in generation:
            answers[index].add(chunk)
    finally:
        generation.close()
    data = sse.to_json(writer.document(choose(answers), generation.record.usage()))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    return Reply(200, headers, WholeBody(data))
