"""Forced tool calls in JSON, where a model's own format is not known.

The structure that forces a call (`engines.text.answers.tool_use.forced_structure`) fixes the answer's form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from engines.base import AnswerDelta, AnswerReader, ToolUse
from engines.text.answers.format import ArgumentsCall, Format, JsonCall
from engines.text.answers.plan import Plan
from engines.text.answers.reader import answer_reader
from engines.text.answers.tool_use import forced_structure

_CALLS = Format(
    name="forced",
    call=JsonCall(argument_keys=("parameters", "arguments"), listed=True),
    signs=(),
    bare=True,
)


def forced_format(named: str | None) -> Format:
    """The format of an answer that must call a function: an array of calls, or the arguments of the one that
    is ``named``."""
    return _CALLS if named is None else replace(_CALLS, call=ArgumentsCall(named))


class ForcedCalls:
    """`AnswerReader` of an answer that is a forced call. ``inner`` parts reasoning from it, if the model
    reasons."""

    def __init__(self, tools: ToolUse, inner: AnswerReader | None) -> None:
        self._reader = answer_reader(forced_format(tools.named), tools.definitions)
        self._inner = inner

    @property
    def in_reasoning(self) -> bool:
        return self._inner is not None and self._inner.in_reasoning

    def feed(self, text: str, token: int, special: str = "") -> AnswerDelta:
        if self._inner is None:
            return self._reader.feed(text, token, special)
        delta = self._inner.feed(text, token, special)
        return self._read(delta, token) if delta.content else delta

    def finish(self) -> AnswerDelta:
        last = self._reader.finish
        if self._inner is None:
            return last()
        delta = self._inner.finish()
        read, end = self._read(delta, -1), last()
        return AnswerDelta(read.content + end.content, read.reasoning, read.tool_calls + end.tool_calls)

    def _read(self, delta: AnswerDelta, token: int) -> AnswerDelta:
        read = self._reader.feed(delta.content, token)
        return AnswerDelta(read.content, delta.reasoning, read.tool_calls)


def forced_plan(tools: ToolUse, inner: Callable[[], AnswerReader | None]) -> Plan:
    """The plan of answers that must call one of ``tools``; ``inner`` makes readers of reasoning."""
    return Plan(lambda: ForcedCalls(tools, inner()), tools, forced_structure(tools))
