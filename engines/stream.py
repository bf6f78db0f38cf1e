"""The loop side of a sequence: engines put chunks in, the HTTP edge takes them out."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from engines.base import AnswerDelta, Chunk, FinishReason, GenerationRequest, ToolCallDelta, Usage
from engines.errors import EngineError
from engines.text.answers.output import Output, TokenTexts, finish_of, output_of


def merge(first: Chunk, second: Chunk) -> Chunk:
    """Two chunks as one, in order."""
    return Chunk(
        text=first.text + second.text,
        token_ids=first.token_ids + second.token_ids,
        logprobs=first.logprobs + second.logprobs,
        finish_reason=second.finish_reason,
        usage=second.usage,
        reasoning=first.reasoning + second.reasoning,
        tool_calls=_join(first.tool_calls, second.tool_calls),
        prompt_logprobs=first.prompt_logprobs + second.prompt_logprobs,
        stop=second.stop,
    )


def _keeps_order(first: Chunk, second: Chunk) -> bool:
    """Whether both can be one chunk, in which reasoning comes before text and text before calls."""
    if first.tool_calls:
        return not (second.text or second.reasoning)
    return not (first.text and second.reasoning)


def _join(first: tuple[ToolCallDelta, ...], second: tuple[ToolCallDelta, ...]) -> tuple[ToolCallDelta, ...]:
    if not (first and second):
        return first or second
    last, next_ = first[-1], second[0]
    if next_.index != last.index or next_.name is not None:
        return first + second
    return (*first[:-1], replace(last, arguments=last.arguments + next_.arguments), *second[1:])


def resume(
    request: GenerationRequest,
    output: Output,
    *,
    limit: int,
    is_end: Callable[[int], bool],
) -> Chunk | None:
    """Feed ``output`` the tokens that another backend generated; the last chunk if they end the answer.

    Text that it releases here was sent before: that depends on nothing but the tokens. ``limit`` is the
    most tokens of the answer; ``is_end`` says that a token ends an answer.
    """
    for count, token in enumerate(request.generated, 1):
        is_last = token in request.stop_token_ids or (is_end(token) and not request.ignore_eos)
        if is_last or output.push(token).stopped:
            return _last(request, output, "stop", count)
    if len(request.generated) >= limit and request.prompt_logprobs is None:
        return _last(request, output, "length", len(request.generated))
    return None


def retell(request: GenerationRequest, vocabulary: TokenTexts) -> tuple[AnswerDelta, ...]:
    """The parts of the answer that `resume` does not tell again."""
    output = output_of(request, vocabulary)
    released = map(output.push, request.generated)
    told = (AnswerDelta(each.text, each.reasoning, each.tool_calls) for each in released)
    return tuple(each for each in told if each != AnswerDelta())


def ended(last: Chunk) -> ChunkStream:
    """The answer that consists of its last chunk."""
    stream = ChunkStream(on_close=lambda: None)
    stream.put(last)
    return stream


def _last(request: GenerationRequest, output: Output, reason: FinishReason, generated: int) -> Chunk:
    rest = output.finish()
    usage = Usage(len(request.prompt.token_ids), generated, reasoning_tokens=output.reasoning_tokens)
    return rest.chunk((), finish_of(reason, output), usage)


class ChunkStream:
    """A `TokenStream` of hardly more than one pending chunk.

    When the reader lags, chunks merge instead of queueing, so a slow client holds one chunk for each part of
    an answer rather than one object a token. Used on the event loop's thread only.
    """

    __slots__ = ("_earlier", "_ended", "_error", "_on_close", "_pending", "_waiter")

    def __init__(self, on_close: Callable[[], None]) -> None:
        """``on_close`` runs once if the stream is closed before its last chunk was put."""
        self._pending: Chunk | None = None
        self._earlier: deque[Chunk] = deque()  # in front of it
        self._error: EngineError | None = None
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._on_close: Callable[[], None] | None = on_close

    def put(self, chunk: Chunk) -> None:
        """Hand over a chunk; one with a ``finish_reason`` ends the stream."""
        if self._ended:
            return
        pending = self._pending
        if pending is None:
            self._pending = chunk
        elif _keeps_order(pending, chunk):
            self._pending = merge(pending, chunk)
        else:
            self._earlier.append(pending)
            self._pending = chunk
        if chunk.finish_reason is not None:
            self._end()
        self._wake()

    def fail(self, error: EngineError) -> None:
        """End the stream: what is pending is still delivered, then ``error`` is raised."""
        if self._ended:
            return
        self._error = error
        self._end()
        self._wake()

    def close(self) -> None:
        """Abort the sequence if it still runs and end the iteration. Synchronous, idempotent."""
        on_close = self._on_close
        self._pending = self._error = None
        self._earlier.clear()
        self._end()
        self._wake()
        if on_close is not None:
            on_close()

    def __aiter__(self) -> ChunkStream:
        return self

    async def __anext__(self) -> Chunk:
        while self._pending is None:
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if self._ended:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._earlier:
            return self._earlier.popleft()
        chunk, self._pending = self._pending, None
        return chunk

    def _end(self) -> None:
        self._ended = True
        self._on_close = None

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
