"""Values of parameters that are written as raw text, and what they are in JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from engines.text.answers.functions import type_of
from engines.text.answers.json_text import escaped
from engines.text.answers.marks import as_written

_WORDS = {"true": "true", "false": "false", "null": "null", "True": "true", "False": "false", "None": "null"}
_NUMBER = re.compile(r"-?[0-9.]*(?:[eE][+-]?[0-9]*)?")
# No word or number has more characters.
_LONGEST = 64


class RawValue:
    """A value that comes in pieces. A string is passed on as it comes, all else when it is whole.

    ``types`` are the JSON types that it may have; if there are none, it is what it looks like.
    """

    def __init__(self, write: Callable[[str], None], types: frozenset[str]) -> None:
        self._write = write
        self._types = types
        self._parts: list[str] = []
        self._size = 0
        self._is_text = types == {"string"}
        self._is_begun = False

    def feed(self, text: str) -> None:
        if self._is_text:
            self._write_text(text)
            return
        self._parts.append(text)
        self._size += len(text)
        if self._size <= _LONGEST or len(self._parts) == 1:
            start = "".join(self._parts).lstrip()
            if start and not self._may_be_other(start):
                self._is_text = True
                self._write_text("".join(self._parts))

    def end(self) -> None:
        if self._is_text:
            self._write('"' if self._is_begun else '""')
        else:
            self._write(to_json(as_written("".join(self._parts)), self._types))

    def _write_text(self, text: str) -> None:
        self._write(escaped(text) if self._is_begun else '"' + escaped(text))
        self._is_begun = True

    def _may_be_other(self, start: str) -> bool:
        """Whether what begins with ``start`` may be anything but a string."""
        if self._types and "string" not in self._types:
            return True
        if start[0] in "{[":
            return not self._types or not self._types.isdisjoint({"object", "array"})
        start = start.rstrip()
        return len(start) <= _LONGEST and (
            bool(_NUMBER.fullmatch(start)) or any(word.startswith(start) for word in _WORDS)
        )


def to_json(text: str, types: frozenset[str]) -> str:
    """The JSON of a value that was written as ``text``: of one of ``types`` if it can be."""
    bare = text.strip()
    bare = _WORDS.get(bare, bare)
    try:
        value: Any = json.loads(bare, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return json.dumps(text, ensure_ascii=False)
    kind = type_of(value)
    fits = kind in types or (kind == "integer" and "number" in types)
    if kind == "number" and "integer" in types and value.is_integer():
        fits = True
    if fits or (not types and kind != "string") or "string" not in (types or {"string"}):
        return bare
    return json.dumps(text, ensure_ascii=False)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")
