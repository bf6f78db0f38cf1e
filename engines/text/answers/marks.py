"""Marks in a text that comes in pieces, and control tokens as a part of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import lru_cache

# Around the name of a control token in a reader's text, so that no other text is taken for it: they stand for
# no character.
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"
_TOKEN = re.compile(f"{_OPEN}[^{_CLOSE}]*{_CLOSE}")


def control(name: str) -> str:
    """A control token as a part of the text."""
    return f"{_OPEN}{name}{_CLOSE}"


def as_written(text: str) -> str:
    """``text`` with the names of its control tokens."""
    return text.replace(_OPEN, "").replace(_CLOSE, "") if _OPEN in text else text


def without_controls(text: str) -> str:
    """``text`` without its control tokens."""
    return _TOKEN.sub("", text) if _OPEN in text else text


def spelled(mark: str, controls: Collection[str]) -> str:
    """``mark`` as it is found in the text of a vocabulary in which ``controls`` are control tokens."""
    for name in controls:
        mark = mark.replace(name, control(name))
    return mark


class Marks:
    """Several marks to look for at once."""

    def __init__(self, marks: Iterable[str]) -> None:
        longest_first = sorted({mark for mark in marks if mark}, key=len, reverse=True)
        source = "|".join(map(re.escape, longest_first)) or r"(?!)"
        pattern = re.compile(source)
        self.find, self.match = pattern.search, pattern.match
        self.firsts = frozenset(mark[0] for mark in longest_first)
        self._beginnings = frozenset(
            mark[:length] for mark in longest_first for length in range(1, len(mark))
        )
        self._longest = max(map(len, self._beginnings), default=0)

    def tail(self, text: str, start: int = 0) -> int:
        """Where a mark may have begun that ``text`` does not have the end of; its length if nowhere."""
        for at in range(max(start, len(text) - self._longest), len(text)):
            if text[at] in self.firsts and text[at:] in self._beginnings:
                return at
        return len(text)

    def may_become(self, text: str) -> bool:
        """Whether ``text`` is the beginning of a mark, or nothing yet."""
        return not text or text in self._beginnings


@lru_cache(maxsize=1024)
def marks(*texts: str) -> Marks:
    """`Marks` of ``texts``, made once."""
    return Marks(texts)
