"""The base of readers: tokens in, deltas out, with a short way for plain text."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache
from typing import Any

from engines.base import AnswerDelta
from engines.text.answers.calls import CallDeltas
from engines.text.answers.format import Format
from engines.text.answers.functions import Functions
from engines.text.answers.marks import as_written, control, spelled, without_controls
from engines.text.answers.output import NOTHING

# Newlines that are kept back, as they may belong to a mark.
_MOST_NEWLINES = 8


class BaseReader:
    """Reads the text of an answer in modes: each takes a part of it, and gives back what it left.

    A mode that needs more text keeps what it has with `_wait`. In some modes text is passed on as it is
    unless ``busy`` finds a character in it that a mark may begin with.
    """

    def __init__(self, format: Format, functions: Functions, controls: Collection[str], hold: int) -> None:
        self._format = spelled_format(format, frozenset(controls))
        self._names = frozenset(format.tokens)
        self._controls = controls
        self.calls = CallDeltas(functions, hold)
        self._content_parts: list[str] = []
        self._reasoning_parts: list[str] = []
        self._held = ""
        self._final = False
        self.in_reasoning = False
        self._mode: Callable[[str], str] = self._begin_answer
        self._busy: Callable[[str], object] | None = None

    def feed(self, text: str, token: int, special: str = "") -> AnswerDelta:
        """What ``token`` adds, as `engines.base.AnswerReader` says."""
        if special:
            text += self._text_of(special)
        elif text and not self._held and self._busy is not None and self._busy(text) is None:
            return AnswerDelta("", text) if self.in_reasoning else AnswerDelta(text)
        if not text:
            return NOTHING
        self._run(text)
        return self._take()

    def finish(self) -> AnswerDelta:
        """What was held back. What began as a mark and was cut off is dropped."""
        self._final = True
        self._run("")
        self._end()
        return self._take()

    def _begin_answer(self, text: str) -> str:
        raise NotImplementedError

    def _end(self) -> None:
        """The answer ended in the mode that it is in."""

    def _takes_controls(self) -> bool:
        """Whether control tokens are text where the reader is, as they are in a call's arguments."""
        raise NotImplementedError

    def _text_of(self, special: str) -> str:
        if special in self._controls:
            return control(special)
        if special in self._names:
            return special  # a mark in this vocabulary, though no control token by its format
        return control(special) if self._takes_controls() else ""

    def _run(self, text: str) -> None:
        text, self._held = self._held + text, ""
        while text:
            text = self._mode(text)

    def _take(self) -> AnswerDelta:
        content, reasoning = "".join(self._content_parts), "".join(self._reasoning_parts)
        self._content_parts.clear()
        self._reasoning_parts.clear()
        if not content and not reasoning and not self.calls.deltas:
            return NOTHING
        return AnswerDelta(content, reasoning, self.calls.take() if self.calls.deltas else ())

    def _go(
        self,
        mode: Callable[[str], str],
        busy: Callable[[str], object] | None = None,
        *,
        reasoning: bool = False,
    ) -> None:
        self._mode, self._busy, self.in_reasoning = mode, busy, reasoning

    def _wait(self, text: str) -> str:
        self._held = text
        return ""

    def _say(self, text: str) -> None:
        self._content_parts.append(without_controls(text))

    def _think(self, text: str) -> None:
        self._reasoning_parts.append(as_written(text))


def before_newlines(text: str, end: int) -> int:
    """Where the newlines in front of ``end`` begin, of which some may belong to a mark."""
    least = max(0, end - _MOST_NEWLINES)
    while end > least and text[end - 1] == "\n":
        end -= 1
    return end


@lru_cache(maxsize=256)
def busy_characters(characters: frozenset[str]) -> Callable[[str], object]:
    """Finds one of ``characters``."""
    source = f"[{re.escape(''.join(sorted(characters)))}]" if characters else r"(?!)"
    return re.compile(source).search


@lru_cache(maxsize=256)
def spelled_format(format: Format, controls: frozenset[str]) -> Format:
    """``format`` with its marks as they are found in the text, see `marks.spelled`."""
    spelt: Format = _spelled(format, controls)
    return spelt


def _spelled(value: Any, controls: frozenset[str]) -> Any:
    if isinstance(value, str):
        return spelled(value, controls)
    if isinstance(value, tuple):
        return tuple(_spelled(each, controls) for each in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _spelled(getattr(value, f.name), controls) for f in fields(value)})
    return value
