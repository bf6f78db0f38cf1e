"""Reader of calls that are a function's name, then its arguments in JSON."""

from __future__ import annotations

from engines.text.answers.calls import CallDeltas
from engines.text.answers.format import NamedCall
from engines.text.answers.json_text import JsonValue
from engines.text.answers.marks import as_written, marks
from engines.text.answers.shape import LONGEST_NAME, ShapeReader, begins, is_name

_FENCE = "```"


class NamedCallReader(ShapeReader):
    """``call_end`` is the mark behind the call, if there is one."""

    def __init__(self, shape: NamedCall, calls: CallDeltas, call_end: str) -> None:
        super().__init__(calls)
        self._shape = shape
        self._call_end = call_end
        self._separator = shape.before_arguments.strip()
        ends = (shape.before_id, self._separator, call_end, "{", "\n")
        self._name_ends = marks(*ends)
        self._value = JsonValue(calls.write)
        self._name = ""

    def _begin(self, text: str) -> str:
        text = text.lstrip()
        if not text:
            return ""
        prefix = begins(text, self._shape.before_name)
        if prefix is None and not self._final:
            return self._wait(text)
        self._step = self._read_name
        return text[len(self._shape.before_name) :] if prefix else text

    def _read_name(self, text: str) -> str:
        found = self._name_ends.find(text)
        if found is None:
            name = text[: self._name_ends.tail(text)].strip()
            return self._wait(text) if not name or is_name(name) else self._break(text)
        self._name = as_written(text[: found.start()]).strip()
        if found[0] == self._shape.before_id:
            self._step = self._read_id
            return text[found.end() :]
        if not self._open_named(self._name, None):
            return self._break(text)
        self._step = self._before_arguments
        return text[found.start() :]

    def _read_id(self, text: str) -> str:
        found = self._name_ends.find(text)
        if found is None:
            return self._break(text) if len(text) > LONGEST_NAME else self._wait(text)
        if not self._open_named(self._name, as_written(text[: found.start()]).strip()):
            return self._break(text)
        self._step = self._before_arguments
        return text[found.start() :]

    def _open_named(self, name: str, id: str | None) -> bool:
        if self._shape.name_in_id:
            bare, colon, number = name.rpartition(":")
            if colon and number.isdecimal():
                return self._open(bare, name)
        return self._open(name, id or None)

    def _before_arguments(self, text: str) -> str:
        """The separator, if it was written: models leave it out."""
        text = text.lstrip()
        if not text:
            return ""
        for mark in (self._separator, _FENCE + "json", _FENCE):
            begun = begins(text, mark) if mark else False
            if begun is None and not self._final:
                return self._wait(text)
            if begun:
                return text[len(mark) :]
        if text[0] == "{":
            self._step = self._read_arguments
            return text
        is_empty = begins(text, self._call_end) if self._call_end else False
        if is_empty is None:
            return self._wait(text)
        if not is_empty:
            return self._break(text)
        self._calls.write("{}")
        return self._finish(text)

    def _read_arguments(self, text: str) -> str:
        rest = self._value.feed(text)
        if self._value.is_broken:
            return self._break(rest)
        if self._value.is_done:
            return self._finish(rest)
        return rest
