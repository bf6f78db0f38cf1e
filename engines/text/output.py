"""From sampled tokens to what a client may see: whole characters, no stop strings, parts told apart."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from engines.base import (
    AnswerDelta,
    AnswerReader,
    Chunk,
    FinishReason,
    GenerationRequest,
    TokenLogprob,
    ToolCallDelta,
    ToolUse,
    Usage,
)
from engines.text.detokenizer import Utf8Stream
from engines.text.stops import StopMatcher


class TokenTexts(Protocol):
    """The part of a vocabulary that gives the bytes of tokens."""

    def piece(self, token: int) -> bytes:
        """The bytes that ``token`` adds to the text, perhaps part of a character; control tokens add none."""
        ...

    def label(self, token: int) -> bytes:
        """The bytes that name ``token``, control tokens included."""
        ...


class Released(NamedTuple):
    """Parts of an answer that became certain; ``stopped`` says that a stop string was found so far.

    A named tuple, as one is made for every token: a frozen dataclass costs twice as much.
    """

    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    stopped: bool = False
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()

    def then(self, rest: Released) -> Released:
        """Both together, in order."""
        return Released(
            self.text + rest.text,
            self.logprobs + rest.logprobs,
            self.stopped or rest.stopped,
            self.reasoning + rest.reasoning,
            self.tool_calls + rest.tool_calls,
        )

    def with_end(self, request: GenerationRequest, logprob: TokenLogprob | None) -> Released:
        """With the log probability of the token that ended the answer, which has no part in its text: that is
        told where those of the prompt are, as who adds them up needs it."""
        if logprob is None or request.prompt_logprobs is None or request.include_stop:
            return self
        return self._replace(logprobs=(*self.logprobs, logprob))

    def chunk(
        self,
        token_ids: tuple[int, ...],
        finish_reason: FinishReason | None = None,
        usage: Usage | None = None,
    ) -> Chunk:
        return Chunk(
            self.text, token_ids, self.logprobs, finish_reason, usage, self.reasoning, self.tool_calls
        )


NOTHING = AnswerDelta()
NO_TOKEN = -1


class TextAssembler:
    """The output of one sequence.

    A token's log probabilities are released when the last character it has a part in is, so that
    they say no more than the text does; those of discarded text are dropped.
    """

    __slots__ = ("_decoded", "_logprobs", "_matcher", "_plain", "_released", "_stopped", "_utf8")

    def __init__(
        self, stops: tuple[str, ...] = (), want_logprobs: bool = False, *, include_stop: bool = False
    ) -> None:
        """``include_stop``: the stop string that ends the output is part of it."""
        self._utf8 = Utf8Stream()
        self._matcher = StopMatcher(stops, keeps=include_stop) if any(stops) else None
        self._logprobs: deque[tuple[int, TokenLogprob]] | None = deque() if want_logprobs else None
        self._plain = self._matcher is None and not want_logprobs
        self._decoded = 0  # characters that left the decoder
        self._released = 0  # characters that were handed out
        self._stopped = False

    def push(self, piece: bytes, logprob: TokenLogprob | None = None) -> Released:
        """Take one token's bytes. After a stop string, everything is discarded."""
        if self._plain:
            return Released(self._utf8.feed(piece))
        if self._stopped:
            return Released(stopped=True)
        text = self._utf8.feed(piece)
        self._decoded += len(text)
        if logprob is not None and self._logprobs is not None:
            # A character still in the decoder will be one more character of text.
            self._logprobs.append((self._decoded + self._utf8.pending, logprob))
        return self._release(self._match(text))

    def take(self, text: str, logprobs: Sequence[TokenLogprob]) -> Released:
        """Take whole characters, and the log probabilities of the tokens that they came from."""
        self._decoded += len(text)
        if self._logprobs is not None:
            self._logprobs.extend((self._decoded, logprob) for logprob in logprobs)
        return self._release(self._match(text))

    def finish(self) -> Released:
        """Generation ended: everything that was held back, unless a stop string was found."""
        text = self._utf8.flush()
        if self._plain:
            return Released(text)
        text = self._match(text)
        if self._matcher is not None and not self._stopped:
            text += self._matcher.flush()
        return self._release(text)

    def _match(self, text: str) -> str:
        if self._matcher is None:
            return text
        text, self._stopped = self._matcher.feed(text)
        return text

    def _release(self, text: str) -> Released:
        self._released += len(text)
        waiting = self._logprobs
        if not waiting:
            return Released(text, (), self._stopped)
        ready: list[TokenLogprob] = []
        while waiting and waiting[0][0] <= self._released:
            ready.append(waiting.popleft()[1])
        if self._stopped:
            waiting.clear()
        return Released(text, tuple(ready), self._stopped)


class Output(Protocol):
    """The output of one sequence: tokens in, parts of the answer out."""

    @property
    def in_reasoning(self) -> bool:
        """Whether what comes next is reasoning."""
        ...

    @property
    def reasoning_tokens(self) -> int: ...

    @property
    def called(self) -> bool:
        """Whether the answer calls a tool, and its end says so."""
        ...

    def push(self, token: int, logprob: TokenLogprob | None = None) -> Released:
        """Take one token. After a stop string, everything is discarded."""
        ...

    def finish(self) -> Released:
        """Generation ended: everything that was held back, unless a stop string was found."""
        ...


def output_of(request: GenerationRequest, vocabulary: TokenTexts) -> Output:
    """The output that ``request`` asks for."""
    text = TextAssembler(request.stop, request.logprobs is not None, include_stop=request.include_stop)
    if request.answer is None:
        return TextOutput(vocabulary.label if request.show_special else vocabulary.piece, text)
    reader = request.answer.reader()
    calls = Calls(request.answer.tools)
    return ReadOutput(reader, calls, vocabulary, text, shows_special=request.show_special)


def finish_of(reason: FinishReason, output: Output) -> FinishReason:
    """The reason for which an answer ended."""
    return "tool_calls" if reason == "stop" and output.called else reason


class TextOutput:
    """Output whose text is all content (`Output`)."""

    __slots__ = ("_piece", "_text")
    in_reasoning = called = False
    reasoning_tokens = 0

    def __init__(self, piece: Callable[[int], bytes], text: TextAssembler) -> None:
        self._piece = piece
        self._text = text

    def push(self, token: int, logprob: TokenLogprob | None = None) -> Released:
        return self._text.push(self._piece(token), logprob)

    def finish(self) -> Released:
        return self._text.finish()


class ReadOutput:
    """Output that a reader tells apart (`Output`): stop strings are looked for in content only."""

    __slots__ = (
        "_calls",
        "_reader",
        "_shows_special",
        "_stopped",
        "_text",
        "_utf8",
        "_vocabulary",
        "_waiting",
        "reasoning_tokens",
    )

    def __init__(
        self,
        reader: AnswerReader,
        calls: Calls,
        vocabulary: TokenTexts,
        text: TextAssembler,
        *,
        shows_special: bool,
    ) -> None:
        self._reader = reader
        self._calls = calls
        self._vocabulary = vocabulary
        self._text = text
        self._utf8 = Utf8Stream()
        self._shows_special = shows_special
        self._waiting: list[TokenLogprob] = []  # of tokens that the reader holds back
        self._stopped = False
        self.reasoning_tokens = 0

    @property
    def in_reasoning(self) -> bool:
        return self._reader.in_reasoning

    @property
    def called(self) -> bool:
        return self._calls.told

    def push(self, token: int, logprob: TokenLogprob | None = None) -> Released:
        if self._stopped:
            return Released(stopped=True)
        self.reasoning_tokens += self._reader.in_reasoning
        if logprob is not None:
            self._waiting.append(logprob)
        if piece := self._vocabulary.piece(token):
            return self._release(self._reader.feed(self._utf8.feed(piece), token))
        special = self._vocabulary.label(token).decode("utf-8", "replace")
        delta = self._reader.feed(self._utf8.flush(), token, special)
        if self._shows_special and delta == NOTHING:
            delta = AnswerDelta(special)
        return self._release(delta)

    def finish(self) -> Released:
        if self._stopped:
            return Released(stopped=True)
        begun = self._utf8.flush()
        released = self._release(self._reader.feed(begun, NO_TOKEN)) if begun else Released()
        released = released.then(self._release(self._reader.finish()))
        return released if self._stopped else released.then(self._text.finish())

    def _release(self, delta: AnswerDelta) -> Released:
        if delta is NOTHING:
            return Released()
        waiting, released = self._waiting, Released()
        if delta.content:
            released = self._text.take(delta.content, waiting)
            self._stopped = released.stopped
        if delta != NOTHING:
            # Which token became what is not known to the character.
            waiting.clear()
        calls = () if self._stopped else tuple(self._calls.follow(delta.tool_calls))
        return Released(released.text, released.logprobs, self._stopped, delta.reasoning, calls)


class Calls:
    """The calls of one answer: their ids, and OpenAI's rules about them."""

    __slots__ = ("_parallel", "_tells", "told")

    def __init__(self, tools: ToolUse | None) -> None:
        self._parallel = tools is None or tools.parallel
        # OpenAI's: an answer that had to call one function just ends.
        self._tells = tools is None or tools.named is None
        self.told = False

    def follow(self, deltas: Iterable[ToolCallDelta]) -> Iterator[ToolCallDelta]:
        for delta in deltas:
            if delta.index and not self._parallel:
                continue
            self.told = self._tells
            if delta.name is not None and delta.id is None:
                delta = replace(delta, id=f"call_{uuid.uuid4().hex}")
            yield delta
