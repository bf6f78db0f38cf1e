"""Readers of forced tool calls: answers in JSON instead of the model's own format.

The structure that forces a call (`engines.text.tool_use`) fixes the answer's form, so reading it is cheap:
each character is looked at once, and arguments are passed on as they come.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Protocol

from engines.base import AnswerDelta, AnswerReader, ToolCallDelta, ToolUse
from engines.text.answer_plan import Plan
from engines.text.tool_use import forced_structure

_BETWEEN_CALLS = " \t\r\n[]},"
# A call up to its arguments.
_HEAD = re.compile(r'\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"parameters"\s*:\s*(?=\{)')
_OF_INTEREST = re.compile(r'[{}\[\]"]')
_END_OF_STRING = re.compile(r'\\.|"', re.DOTALL)


class CallReader(Protocol):
    """Turns the text of one answer into deltas of tool calls."""

    def feed(self, text: str) -> list[ToolCallDelta]: ...


class NamedCall:
    """Reader of a text that is the arguments of one function."""

    def __init__(self, name: str) -> None:
        self._name: str | None = name

    def feed(self, text: str) -> list[ToolCallDelta]:
        name, self._name = self._name, None
        return [ToolCallDelta(0, name=name, arguments=text)]


class CallArray:
    """Reader of an array of ``{"name": …, "parameters": {…}}``."""

    def __init__(self) -> None:
        self._count = 0
        self._head = ""
        self._arguments: _ObjectEnd | None = None

    def feed(self, text: str) -> list[ToolCallDelta]:
        found: list[ToolCallDelta] = []
        while text:
            if self._arguments is None:
                text = self._begin(text, found)
            else:
                text = self._go_on(text, self._arguments, found)
        return found

    def _begin(self, text: str, found: list[ToolCallDelta]) -> str:
        """Read up to a call's arguments, once all of that is there."""
        self._head = (self._head + text).lstrip(_BETWEEN_CALLS)
        head = _HEAD.match(self._head)
        if head is None:
            return ""
        rest, self._head = self._head[head.end() :], ""
        found.append(ToolCallDelta(self._count, name=json.loads(head[1])))
        self._arguments = _ObjectEnd()
        self._count += 1
        return rest

    def _go_on(self, text: str, arguments: _ObjectEnd, found: list[ToolCallDelta]) -> str:
        end = arguments.find(text)
        found.append(ToolCallDelta(self._count - 1, arguments=text[:end]))
        if end is None:
            return ""
        self._arguments = None
        return text[end:]


class _ObjectEnd:
    """Finds where a JSON object ends that comes in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._in_escape = False

    def find(self, piece: str) -> int | None:
        """The place behind the object's last character; None if that is not in ``piece``."""
        held = int(self._in_escape)  # a backslash that ended the last piece
        text = "\\" * held + piece
        at = 0
        while mark := (_END_OF_STRING if self._in_string else _OF_INTEREST).search(text, at):
            at = mark.end()
            if mark[0] == '"':
                self._in_string = not self._in_string
            elif not self._in_string:
                self._depth += 1 if mark[0] in "{[" else -1
                if self._depth == 0:
                    return at - held
        self._in_escape = self._in_string and text.endswith("\\", at)
        return None


class ForcedCalls:
    """`AnswerReader` of an answer that is a forced call. ``inner`` parts reasoning from it, if the model
    reasons."""

    def __init__(self, reader: CallReader, inner: AnswerReader | None) -> None:
        self._reader = reader
        self._inner = inner

    @property
    def in_reasoning(self) -> bool:
        return self._inner is not None and self._inner.in_reasoning

    def feed(self, text: str, token: int, special: str = "") -> AnswerDelta:
        return self._calls(
            AnswerDelta(text) if self._inner is None else self._inner.feed(text, token, special)
        )

    def finish(self) -> AnswerDelta:
        return AnswerDelta() if self._inner is None else self._calls(self._inner.finish())

    def _calls(self, delta: AnswerDelta) -> AnswerDelta:
        if not delta.content:
            return delta
        return AnswerDelta(reasoning=delta.reasoning, tool_calls=tuple(self._reader.feed(delta.content)))


def forced_plan(tools: ToolUse, inner: Callable[[], AnswerReader | None]) -> Plan:
    """The plan of answers that must call one of ``tools``; ``inner`` makes readers of reasoning."""

    def reader() -> AnswerReader:
        named = tools.named
        return ForcedCalls(CallArray() if named is None else NamedCall(named), inner())

    return Plan(reader, tools, forced_structure(tools))
