"""Reader of calls that are written as in Python: ``name(key='value', …)``."""

from __future__ import annotations

import json
import re

from engines.text.answers.calls import CallDeltas
from engines.text.answers.json_text import escaped
from engines.text.answers.marks import as_written
from engines.text.answers.nested_call import NestedCallReader
from engines.text.answers.shape import LONGEST_NAME, is_name

_PAIRS = {"}": "{", "]": "[", ")": "("}
_JSON_BRACKETS = {"{": "{", "[": "[", "(": "[", "}": "}", "]": "]", ")": "]"}
_IN_STRING = {quote: re.compile(rf"[\\{quote}]") for quote in "'\""}
_LITERAL_END = re.compile(r"[,)\]}:]")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a", "0": "\0", "\n": ""}
_HEX_ESCAPES = {"x": 2, "u": 4, "U": 8}


class PythonCallReader(NestedCallReader):
    """Its outermost container is the call itself."""

    def __init__(self, calls: CallDeltas) -> None:
        super().__init__(calls)
        self._open_ones.append("call")
        self._quote = ""

    def _begin(self, text: str) -> str:
        text = text.lstrip()
        name, parenthesis, rest = text.partition("(")
        if not parenthesis:
            is_long = bool(text) and not is_name(text.rstrip())
            return self._break(text) if is_long or len(text) > LONGEST_NAME else self._wait(text)
        if not self._open(as_written(name).strip()):
            return self._break(text)
        self._later("{")
        self._step = self._next_argument
        return rest

    def _next_argument(self, text: str) -> str:
        text = text.lstrip()
        if not text:
            return ""
        if text[0] == ")":
            return self._end(text)
        key, equals, rest = text.partition("=")
        if not equals:
            is_long = len(text) > LONGEST_NAME or not is_name(text.rstrip())
            return self._break(text) if is_long else self._wait(text)
        if not key.strip().isidentifier():
            return self._break(text)
        self._separate(json.dumps(key.strip(), ensure_ascii=False) + ": ")
        self._step = self._read_value
        return rest

    def _next_key(self, text: str) -> str:
        return self._next_element(text, is_key=True)

    def _next_item(self, text: str) -> str:
        return self._next_element(text, is_key=False)

    def _next_element(self, text: str, *, is_key: bool) -> str:
        """A key or an item, or the end of what has no more."""
        text = text.lstrip()
        if not text:
            return ""
        if text[0] in _PAIRS:
            return self._end(text)
        self._separate("")
        self._is_key = is_key
        if is_key and text[0] not in _IN_STRING:
            return self._break(text)
        return self._read_value(text)

    def _read_value(self, text: str) -> str:
        self._step = self._read_value
        text = text.lstrip()
        if not text:
            return ""
        if text[0] in _IN_STRING:
            self._quote = text[0]
            self._later('"')
            self._step = self._read_string
            return text[1:]
        if text[0] in "{[(":
            if not self._push(text[0], _JSON_BRACKETS[text[0]]):
                return self._break(text)
            self._step = self._next_key if text[0] == "{" else self._next_item
            return text[1:]
        return self._read_literal(text, _LITERAL_END.search(text))

    def _read_string(self, text: str) -> str:
        found = _IN_STRING[self._quote].search(text)
        if found is None:
            self._write(escaped(text))
            return ""
        if found.start():
            self._write(escaped(text[: found.start()]))
        if found[0] == "\\":
            return self._read_escape(text[found.start() :])
        self._write('"')
        self._end_string()
        return text[found.end() :]

    def _read_escape(self, text: str) -> str:
        """What begins with a backslash."""
        if len(text) < 2:
            return self._wait(text)
        char = text[1]
        length = _HEX_ESCAPES.get(char)
        if length is None:
            self._write(escaped(_ESCAPES.get(char, char if char in "\\'\"" else text[:2])))
            return text[2:]
        digits = text[2 : 2 + length]
        try:
            number = int(digits or "0", 16)
        except ValueError:
            return self._break(text)
        if len(digits) < length:
            return self._wait(text)
        # Half of a pair stands alone here, and must not in a Python string.
        self._write(f"\\u{digits}" if length == 4 else escaped(chr(min(number, 0x10FFFF))))
        return text[2 + length :]

    def _behind_value(self, text: str) -> str:
        text = text.lstrip()
        if not text:
            return ""
        if text[0] != ",":
            return self._end(text)
        steps = {"call": self._next_argument, "{": self._next_key}
        self._step = steps.get(self._open_ones[-1], self._next_item)
        return text[1:]

    def _end(self, text: str) -> str:
        """The end of a container or of the call, if ``text`` begins with it."""
        opener = _PAIRS.get(text[0])
        if self._open_ones == ["call"] and opener == "(":
            self._write("}")
            return self._finish(text[1:])
        if opener != self._open_ones[-1]:
            return self._break(text)
        self._pop(_JSON_BRACKETS[text[0]])
        return text[1:]
