"""Readers of calls that are JSON: ``{"name": …, "arguments": {…}}``, or arguments alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from engines.text.answers.calls import CallDeltas
from engines.text.answers.format import ArgumentsCall, JsonCall
from engines.text.answers.json_text import JsonString, JsonValue
from engines.text.answers.shape import LONGEST_NAME, ShapeReader

_SPACE = " \t\r\n"
# Keys that say nothing, in calls that must be told from other objects.
_HARMLESS = frozenset({"type", "id"})
_SCALAR = re.compile(r"[A-Za-z0-9.+\-]+")
_LONGEST_SCALAR = 1024


class JsonCallReader(ShapeReader):
    """``is_strict``: nothing marks it as a call, so that it must have a call's keys and no others."""

    def __init__(self, shape: JsonCall, calls: CallDeltas, *, is_strict: bool) -> None:
        super().__init__(calls)
        self._shape = shape
        self._is_strict = is_strict
        self._string = JsonString()
        self._value = JsonValue(self._write)
        self._key = ""
        self._is_open = False  # the name is known
        self._early: list[str] = []  # arguments before it
        self._has_arguments = False
        self._scalar_size = 0

    def _begin(self, text: str) -> str:
        return self._expect(text, {"{": self._first_key})

    def _first_key(self, text: str) -> str:
        return self._expect(text, {'"': self._read_key, "}": self._end})

    def _next_key(self, text: str) -> str:
        return self._expect(text, {'"': self._read_key})

    def _read_key(self, text: str) -> str:
        rest = self._string.feed(text)
        if self._string.value is None:
            return self._break(rest) if self._string.size > LONGEST_NAME else rest
        self._key, self._string = self._string.value, JsonString()
        known = (*self._shape.name_keys, *self._shape.argument_keys)
        if self._is_strict and self._key not in known and self._key not in _HARMLESS:
            return self._break(rest)
        self._step = self._colon
        return rest

    def _colon(self, text: str) -> str:
        return self._expect(text, {":": self._begin_value})

    def _begin_value(self, text: str) -> str:
        text = text.lstrip(_SPACE)
        if not text:
            return ""
        first = text[0]
        is_arguments = self._key in self._shape.argument_keys and not self._has_arguments
        if self._key in self._shape.name_keys and not self._is_open:
            if first != '"':
                return self._break(text)
            self._step = self._read_name
        elif is_arguments and first == '"':
            self._step = self._read_arguments_text
        elif is_arguments and first == "{":
            self._has_arguments = True
            self._value = JsonValue(self._write)
            self._step = self._read_value
        elif is_arguments and first == "[":
            return self._break(text)
        elif first in '{["':
            self._value = JsonValue(len)  # which is nothing to us
            self._step = self._read_value
        else:
            self._step = self._skip_scalar
        return text

    def _read_name(self, text: str) -> str:
        rest = self._string.feed(text)
        name = self._string.value
        if name is None:
            return self._break(rest) if self._string.size > LONGEST_NAME else rest
        self._string = JsonString()
        if not self._open(name):
            return self._break(rest)
        self._is_open = True
        for part in self._early:
            self._calls.write(part)
        self._early.clear()
        self._step = self._behind_value
        return rest

    def _read_value(self, text: str) -> str:
        rest = self._value.feed(text)
        if self._value.is_broken:
            return self._break(rest)
        if self._value.is_done:
            self._step = self._behind_value
        return rest

    def _read_arguments_text(self, text: str) -> str:
        """Arguments whose JSON stands in a string."""
        rest = self._string.feed(text)
        value = self._string.value
        if value is None:
            return rest
        self._string = JsonString()
        try:
            is_object = isinstance(json.loads(value or "{}"), dict)
        except (ValueError, RecursionError):
            is_object = False
        if not is_object:
            return self._break(rest)
        self._has_arguments = True
        self._write(value or "{}")
        self._step = self._behind_value
        return rest

    def _skip_scalar(self, text: str) -> str:
        found = _SCALAR.match(text)
        end = found.end() if found else 0
        self._scalar_size += end
        if self._scalar_size > _LONGEST_SCALAR or (end < len(text) and not self._scalar_size):
            return self._break(text[end:])
        if end < len(text):
            self._scalar_size = 0
            self._step = self._behind_value
        return text[end:]

    def _behind_value(self, text: str) -> str:
        return self._expect(text, {",": self._next_key, "}": self._end})

    def _end(self, text: str) -> str:
        """Behind the last brace."""
        if not self._is_open or (self._is_strict and not self._has_arguments):
            return self._break(text)
        if not self._has_arguments:
            self._calls.write("{}")
        return self._finish(text)

    def _write(self, text: str) -> None:
        if self._is_open:
            self._calls.write(text)
        else:
            self._early.append(text)

    def _expect(self, text: str, steps: dict[str, Callable[[str], str]]) -> str:
        """Go on with the step of the next character; a string begins with it."""
        text = text.lstrip(_SPACE)
        if not text:
            return ""
        step = steps.get(text[0])
        if step is None:
            return self._break(text)
        if step == self._end:
            return self._end(text[1:])
        self._step = step
        return text if text[0] == '"' else text[1:]


class ArgumentsCallReader(ShapeReader):
    """Reads arguments of a function that is known."""

    def __init__(self, shape: ArgumentsCall, calls: CallDeltas) -> None:
        super().__init__(calls)
        self._shape = shape
        self._value = JsonValue(calls.write)

    def _begin(self, text: str) -> str:
        text = text.lstrip()
        if text and not self._open(self._shape.name):
            return self._break(text)
        self._step = self._read_arguments
        return text

    def _read_arguments(self, text: str) -> str:
        rest = self._value.feed(text)
        if self._value.is_broken:
            return self._break(rest)
        return self._finish(rest) if self._value.is_done else rest
