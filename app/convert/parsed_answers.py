"""Chunks of chat answers whose text is not all content: reasoning and calls of tools are told apart."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from app.convert.answers import Answer
from app.convert.forced_calls import CallArray, CallReader, ForcedCalls, NamedCall
from app.convert.tools import ToolUse
from engines.base import AnswerParser, Chunk, Engine, Prompt, TokenLogprob, ToolCallDelta


@dataclass(frozen=True, slots=True)
class Part:
    """What one chunk adds to an answer.

    ``logprobs`` are the chunk's if it has content, else none: which token became what is not known.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: str | None = None


class AnswerReader:
    """Reads one answer."""

    def __init__(self, parser: AnswerParser, tools: ToolUse | None) -> None:
        self._parser = parser
        self._parallel = tools is None or tools.parallel
        # OpenAI's: an answer that had to call one function just ends.
        self._tells_calls = tools is not None and tools.named is None
        self._called = False

    def read(self, chunk: Chunk) -> Part:
        delta = self._parser.push(chunk)
        calls = tuple(self._calls(delta.tool_calls)) if delta.tool_calls else ()
        finish_reason: str | None = chunk.finish_reason
        if finish_reason == "stop" and self._called and self._tells_calls:
            finish_reason = "tool_calls"
        logprobs = chunk.logprobs if delta.content else ()
        return Part(delta.content, delta.reasoning, calls, logprobs, finish_reason)

    def _calls(self, deltas: Iterable[ToolCallDelta]) -> Iterable[ToolCallDelta]:
        for delta in deltas:
            if delta.index and not self._parallel:
                continue
            self._called = True
            if delta.name is not None and delta.id is None:
                delta = replace(delta, id=f"call_{uuid.uuid4().hex}")
            yield delta


@dataclass(slots=True)
class Call:
    """One call of a tool, as far as it came."""

    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(slots=True, kw_only=True)
class ParsedAnswer(Answer):
    """One choice, drained through its reader."""

    reader: AnswerReader
    reasoning: str = ""
    calls: dict[int, Call] = field(default_factory=dict)

    def add(self, chunk: Chunk) -> None:
        part = self.reader.read(chunk)
        self.text += part.text
        self.reasoning += part.reasoning
        self.logprobs.extend(part.logprobs)
        self.finish_reason = part.finish_reason or self.finish_reason
        for delta in part.tool_calls:
            call = self.calls.setdefault(delta.index, Call())
            call.id = call.id or delta.id or ""
            call.name = call.name or delta.name or ""
            call.arguments += delta.arguments


def answer_readers(engine: Engine, tools: ToolUse | None, prompt: Prompt, count: int) -> list[AnswerReader]:
    """A reader for each of ``count`` answers to ``prompt``; none if all of their text is content."""
    if tools is None and "reasoning" not in engine.info.capabilities:
        return []
    parsers = [_parser(engine, tools, prompt) for _ in range(count)]
    return [AnswerReader(parser, tools) for parser in parsers if parser is not None]


def _parser(engine: Engine, tools: ToolUse | None, prompt: Prompt) -> AnswerParser | None:
    if tools is None or not tools.is_forced:
        return engine.answer_parser(tools.definitions() if tools is not None else None, prompt)
    reader: CallReader = CallArray() if tools.named is None else NamedCall(tools.named)
    reasons = "reasoning" in engine.info.capabilities
    return ForcedCalls(reader, engine.answer_parser(None, prompt) if reasons else None)
