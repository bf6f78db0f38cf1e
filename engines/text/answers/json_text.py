"""JSON that comes in pieces: where a value ends, and what was written wrongly in it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from engines.text.answers.marks import as_written

# All that may stand outside of strings is skipped: white space, numbers, and the words true, false and null.
_OUTSIDE = re.compile(r"[^ \t\r\n:,0-9.eE+\-truefalsn]")
_INSIDE = re.compile(r'["\\\x00-\x1f]')
_PAIRS = {"}": "{", "]": "["}
# What nests deeper breaks those who read it.
_DEEPEST = 500


def escaped(text: str) -> str:
    """``text`` as it is written inside a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


class JsonValue:
    """An object, array or string, read up to its end.

    ``write`` gets its text as it is, but for control characters in strings, which must be escaped.
    """

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._open: list[str] = []
        self._in_string = False
        self._in_escape = False
        self.is_done = False
        self.is_broken = False

    def feed(self, text: str) -> str:
        """What of ``text`` is not the value's: behind its end, or what breaks it."""
        at = start = 0
        size = len(text)
        while at < size and not self.is_done and not self.is_broken:
            if self._in_escape:
                self._in_escape = False
                at += 1
                continue
            found = (_INSIDE if self._in_string else _OUTSIDE).search(text, at)
            if found is None:
                at = size
                break
            at, char = found.end(), found[0]
            if not self._in_string:
                at -= self._structure(char)
            elif char == "\\":
                self._in_escape = True
            elif char == '"':
                self._in_string = False
                self.is_done = not self._open
            else:
                self._write(text[start : at - 1] + escaped(char))
                start = at
        if at > start:
            self._write(text[start:at])
        return text[at:]

    def _structure(self, char: str) -> int:
        """Take a character outside of strings; 1 if it is none of the value."""
        if char == '"':
            self._in_string = True
        elif char in "{[" and len(self._open) < _DEEPEST:
            self._open.append(char)
        elif self._open and _PAIRS.get(char) == self._open[-1]:
            self._open.pop()
            self.is_done = not self._open
        else:
            self.is_broken = True
            return 1
        return 0


class JsonString:
    """A JSON string, read up to its end; ``value`` is then its text."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._value = JsonValue(self._parts.append)
        self.value: str | None = None
        self.size = 0

    def feed(self, text: str) -> str:
        """What of ``text`` is behind the string."""
        rest = self._value.feed(text)
        self.size += len(text) - len(rest)
        if self._value.is_done:
            try:
                self.value = json.loads(as_written("".join(self._parts)))
            except ValueError:  # an escape that there is not
                self.value = as_written("".join(self._parts)[1:-1])
        return rest
