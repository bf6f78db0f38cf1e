"""Answers whose parts are marked, for the fake engine."""

from __future__ import annotations

from engines.base import AnswerDelta, ToolCallDelta


class MarkReader:
    """`~` begins reasoning, `^` content, `@` a call's name and `$` its arguments."""

    def __init__(self) -> None:
        self._mode = "^"
        self._call = -1
        self._name = ""

    @property
    def in_reasoning(self) -> bool:
        return self._mode == "~"

    def feed(self, text: str, token: int, special: str = "") -> AnswerDelta:
        delta = AnswerDelta()
        for character in text:
            delta = self._step(delta, character)
        return delta

    def finish(self) -> AnswerDelta:
        return AnswerDelta()

    def _step(self, delta: AnswerDelta, character: str) -> AnswerDelta:
        if character in "~^@$":
            self._mode = character
            if character == "@":
                self._call, self._name = self._call + 1, ""
            if character == "$":
                call = ToolCallDelta(self._call, name=self._name)
                return delta._replace(tool_calls=(*delta.tool_calls, call))
        elif self._mode == "@":
            self._name += character
        elif self._mode == "$":
            call = ToolCallDelta(self._call, arguments=character)
            return delta._replace(tool_calls=(*delta.tool_calls, call))
        elif self._mode == "~":
            return delta._replace(reasoning=delta.reasoning + character)
        else:
            return delta._replace(content=delta.content + character)
        return delta
