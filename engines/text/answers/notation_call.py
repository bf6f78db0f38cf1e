"""Reader of calls in Gemma's notation: ``call:name{key:value,…}``."""

from __future__ import annotations

import json

from engines.text.answers.calls import CallDeltas
from engines.text.answers.format import NotationCall
from engines.text.answers.json_text import JsonValue, escaped
from engines.text.answers.marks import as_written, marks
from engines.text.answers.nested_call import LONGEST, NestedCallReader
from engines.text.answers.shape import LONGEST_NAME, begins

_PAIRS = {"}": "{", "]": "["}
_LITERAL_ENDS = marks(",", "}", "]")


class NotationCallReader(NestedCallReader):
    """Its outermost container are the arguments."""

    def __init__(self, shape: NotationCall, calls: CallDeltas) -> None:
        super().__init__(calls)
        self._shape = shape
        self._quote = marks(shape.quote)
        self._json = JsonValue(self._write)

    def _begin(self, text: str) -> str:
        text = text.lstrip()
        begun = begins(text, self._shape.before_name)
        if begun is None:
            return self._wait(text)
        self._step = self._read_name
        return text[len(self._shape.before_name) :] if begun else self._break(text)

    def _read_name(self, text: str) -> str:
        name, brace, rest = text.partition("{")
        if not brace:
            is_long = len(text) > LONGEST_NAME or " " in text.strip()
            return self._break(text) if is_long else self._wait(text)
        if not self._open(as_written(name).strip()):
            return self._break(text)
        self._enter("{")
        return rest

    def _enter(self, bracket: str) -> bool:
        self._step = self._next_key if bracket == "{" else self._next_value
        return self._push(bracket, bracket)

    def _next_key(self, text: str) -> str:
        """A key, or the end of an object that has none."""
        text = text.lstrip()
        if not text:
            return ""
        if text[0] == "}":
            return self._behind_value(text)
        begun = begins(text, self._shape.quote)
        if begun is None:
            return self._wait(text)
        if begun or text[0] == '"':
            self._is_key = True
            self._separate("")
            return self._begin_string(text, ours=bool(begun))
        key, colon, rest = text.partition(":")
        if not colon:
            return self._break(text) if len(text) > LONGEST else self._wait(text)
        self._separate(json.dumps(as_written(key).strip(), ensure_ascii=False) + ": ")
        self._step = self._read_value
        return rest

    def _next_value(self, text: str) -> str:
        """An element, or the end of an array that has none."""
        text = text.lstrip()
        if not text:
            return ""
        if text[0] == "]":
            return self._behind_value(text)
        self._separate("")
        self._step = self._read_value
        return text

    def _read_value(self, text: str) -> str:
        text = text.lstrip()
        if not text:
            return ""
        if text[0] in "{[":
            return text[1:] if self._enter(text[0]) else self._break(text)
        begun = begins(text, self._shape.quote)
        if begun is None:
            return self._wait(text)
        if begun or text[0] == '"':
            self._is_key = False
            return self._begin_string(text, ours=bool(begun))
        return self._read_literal(text, _LITERAL_ENDS.find(text))

    def _begin_string(self, text: str, *, ours: bool) -> str:
        if ours:
            self._later('"')
            self._step = self._read_string
            return text[len(self._shape.quote) :]
        self._json = JsonValue(self._write)
        self._step = self._read_json_string
        return text

    def _read_string(self, text: str) -> str:
        found = self._quote.find(text)
        end = found.start() if found else self._quote.tail(text)
        if end:
            self._write(escaped(text[:end]))
        if found is None:
            return self._wait(text[end:])
        self._write('"')
        self._end_string()
        return text[found.end() :]

    def _read_json_string(self, text: str) -> str:
        rest = self._json.feed(text)
        if self._json.is_done:
            self._end_string()
        return rest

    def _behind_value(self, text: str) -> str:
        text = text.lstrip()
        if not text:
            return ""
        if text[0] == ",":
            self._step = self._next_key if self._open_ones[-1] == "{" else self._next_value
            return text[1:]
        if _PAIRS.get(text[0]) != self._open_ones[-1]:
            return self._break(text)
        self._pop(text[0])
        return text[1:] if self._open_ones else self._finish(text[1:])
