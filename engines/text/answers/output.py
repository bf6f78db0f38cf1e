"""From sampled tokens to what a client may see: whole characters, no stop strings, parts told apart."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from hashlib import blake2b
from typing import Protocol

from engines.base import (
    AnswerDelta,
    AnswerReader,
    FinishReason,
    GenerationRequest,
    TokenLogprob,
    ToolCallDelta,
    ToolUse,
)
from engines.text.answers.assembler import Released, TextAssembler
from engines.text.tokens.detokenizer import Utf8Stream


class TokenTexts(Protocol):
    """The part of a vocabulary that gives the bytes of tokens."""

    def piece(self, token: int) -> bytes:
        """The bytes that ``token`` adds to the text, perhaps part of a character; control tokens add none."""
        ...

    def label(self, token: int) -> bytes:
        """The bytes that name ``token``, control tokens included."""
        ...


NOTHING = AnswerDelta()
NO_TOKEN = -1


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
    calls = Calls(request.answer.tools, request.answer_id)
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
            return self._text.stopped()
        was_reasoning = self._reader.in_reasoning
        self.reasoning_tokens += was_reasoning
        delta = self._feed(token)
        if logprob is not None:
            self._waiting.append(logprob)
            if not delta.content and (was_reasoning or self._reader.in_reasoning):
                self._waiting.clear()  # reasoning, and the marks around it
        return self._release(delta)

    def _feed(self, token: int) -> AnswerDelta:
        if piece := self._vocabulary.piece(token):
            return self._reader.feed(self._utf8.feed(piece), token)
        special = self._vocabulary.label(token).decode("utf-8", "replace")
        delta = self._reader.feed(self._utf8.flush(), token, special)
        return AnswerDelta(special) if self._shows_special and delta == NOTHING else delta

    def finish(self) -> Released:
        if self._stopped:
            return self._text.stopped()
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
        return released._replace(stopped=self._stopped, reasoning=delta.reasoning, tool_calls=calls)


class Calls:
    """The calls of one answer: their ids, and OpenAI's rules about them.

    The ids follow from ``answer_id``, the answer's own: whoever goes on with it gives them once more.
    """

    __slots__ = ("_answer_id", "_parallel", "_tells", "told")

    def __init__(self, tools: ToolUse | None, answer_id: str = "") -> None:
        self._answer_id = answer_id or uuid.uuid4().hex
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
                delta = replace(delta, id=self._id(delta.index))
            yield delta

    def _id(self, index: int) -> str:
        return f"call_{blake2b(f'{self._answer_id}/{index}'.encode(), digest_size=12).hexdigest()}"
