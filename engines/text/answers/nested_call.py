"""The base of readers of calls whose arguments nest as in JSON, but are written otherwise."""

from __future__ import annotations

import re

from engines.text.answers.calls import CallDeltas
from engines.text.answers.marks import as_written
from engines.text.answers.shape import ShapeReader
from engines.text.answers.values import to_json

LONGEST = 1024
DEEPEST = 500


class NestedCallReader(ShapeReader):
    """Writes the JSON of what it reads. ``_open_ones`` are the brackets that are open."""

    def __init__(self, calls: CallDeltas) -> None:
        super().__init__(calls)
        self._open_ones: list[str] = []
        self._is_first = True
        self._is_key = False

    def _read_value(self, text: str) -> str:
        raise NotImplementedError

    def _behind_value(self, text: str) -> str:
        raise NotImplementedError

    def _push(self, bracket: str, json_bracket: str) -> bool:
        """Open a container; False if it would nest too deep."""
        if len(self._open_ones) >= DEEPEST:
            return False
        self._open_ones.append(bracket)
        self._later(json_bracket)
        self._is_first = True
        return True

    def _pop(self, json_bracket: str) -> None:
        """Close the container that was opened last."""
        self._open_ones.pop()
        self._write(json_bracket)
        self._is_first = False
        self._step = self._behind_value

    def _separate(self, text: str) -> None:
        """Begin an element, or a key that is ``text`` already."""
        self._later(text if self._is_first else ", " + text)
        self._is_first = False

    def _end_string(self) -> None:
        self._step = self._colon if self._is_key else self._behind_value
        self._is_key = False

    def _colon(self, text: str) -> str:
        text = text.lstrip()
        if not text:
            return ""
        if text[0] != ":":
            return self._break(text)
        self._later(": ")
        self._step = self._read_value
        return text[1:]

    def _read_literal(self, text: str, end: re.Match[str] | None) -> str:
        """A number or a word, up to what is at its ``end``."""
        if end is None:
            return self._break(text) if len(text) > LONGEST else self._wait(text)
        self._write(to_json(as_written(text[: end.start()]).strip(), frozenset()))
        self._is_key = False
        self._step = self._behind_value
        return text[end.start() :]
