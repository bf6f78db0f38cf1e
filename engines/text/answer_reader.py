"""Readers of chat answers: content, reasoning and tool calls told apart, chunk by chunk."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace

from engines.base import AnswerParser, Chunk, Engine, Prompt, TokenLogprob, ToolCallDelta
from engines.text.forced_calls import CallArray, CallReader, ForcedCalls, NamedCall
from engines.text.tool_use import ToolUse


@dataclass(frozen=True, slots=True)
class AnswerPart:
    """The part of an answer that one chunk brings.

    ``logprobs`` are the chunk's if it has content, else none: which token became what is not known.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: str | None = None


class AnswerReader:
    """Reader of one answer: its parser, and OpenAI's rules about calls."""

    def __init__(self, parser: AnswerParser, tools: ToolUse | None, *, tell_reasoning: bool = True) -> None:
        self._parser = parser
        self._tells_reasoning = tell_reasoning
        self._parallel = tools is None or tools.parallel
        # OpenAI's: an answer that had to call one function just ends.
        self._tells_calls = tools is not None and tools.named is None
        self._called = False

    def read(self, chunk: Chunk) -> AnswerPart:
        delta = self._parser.push(chunk)
        calls = tuple(self._calls(delta.tool_calls)) if delta.tool_calls else ()
        finish_reason: str | None = chunk.finish_reason
        if finish_reason == "stop" and self._called and self._tells_calls:
            finish_reason = "tool_calls"
        logprobs = chunk.logprobs if delta.content else ()
        reasoning = delta.reasoning if self._tells_reasoning else ""
        return AnswerPart(delta.content, reasoning, calls, logprobs, finish_reason)

    def _calls(self, deltas: Iterable[ToolCallDelta]) -> Iterable[ToolCallDelta]:
        for delta in deltas:
            if delta.index and not self._parallel:
                continue
            self._called = True
            if delta.name is not None and delta.id is None:
                delta = replace(delta, id=f"call_{uuid.uuid4().hex}")
            yield delta


def answer_readers(
    engine: Engine, tools: ToolUse | None, prompt: Prompt, count: int, *, tell_reasoning: bool = True
) -> list[AnswerReader]:
    """A reader for each of ``count`` answers to ``prompt``; none if all of their text is content."""
    if tools is None and "reasoning" not in engine.info.capabilities:
        return []
    parsers = [_parser(engine, tools, prompt) for _ in range(count)]
    return [
        AnswerReader(parser, tools, tell_reasoning=tell_reasoning) for parser in parsers if parser is not None
    ]


def _parser(engine: Engine, tools: ToolUse | None, prompt: Prompt) -> AnswerParser | None:
    if tools is None or not tools.is_forced:
        return engine.answer_parser(tools.definitions if tools is not None else None, prompt)
    reader: CallReader = CallArray() if tools.named is None else NamedCall(tools.named)
    reasons = "reasoning" in engine.info.capabilities
    return ForcedCalls(reader, engine.answer_parser(None, prompt) if reasons else None)
