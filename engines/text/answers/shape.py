"""The base of readers of one call, whatever its shape."""

from __future__ import annotations

import re
from collections.abc import Callable

from engines.text.answers.calls import CallDeltas

# What a function may be called; longer is none of one.
_NAME = re.compile(r"[\w.\-:/]+")
LONGEST_NAME = 256


class ShapeReader:
    """Reads one call and passes it on to ``calls``.

    A reader is a chain of steps: each takes a part of the text, sets the next one, and gives back what it
    left; a step that needs more text keeps what it has with `_wait`.
    """

    def __init__(self, calls: CallDeltas) -> None:
        self.is_done = False
        self.is_broken = False
        self._calls = calls
        self._held = ""
        self._due = ""
        self._final = False
        self._step: Callable[[str], str] = self._begin

    def feed(self, text: str, final: bool) -> str:
        """What of ``text`` is no part of the call: behind its end, or what breaks it."""
        self._final = final
        text, self._held = self._held + text, ""
        while text and not self.is_done and not self.is_broken:
            text = self._step(text)
        return text

    def _begin(self, text: str) -> str:
        raise NotImplementedError

    def _wait(self, text: str) -> str:
        """Go on with ``text`` when there is more; there will be none of what was cut off."""
        self._held = "" if self._final else text
        return ""

    def _later(self, text: str) -> None:
        """Arguments that are passed on with the next ones: alone they say nothing."""
        self._due += text

    def _write(self, text: str) -> None:
        self._calls.write(self._due + text)
        self._due = ""

    def _break(self, text: str) -> str:
        self.is_broken = True
        return text

    def _finish(self, text: str) -> str:
        self._calls.close()
        self.is_done = True
        return text

    def _open(self, name: str, id: str | None = None) -> bool:
        """Begin the call of the function ``name``, if there is one."""
        return is_name(name) and self._calls.open(name, id)


def is_name(text: str) -> bool:
    return len(text) <= LONGEST_NAME and _NAME.fullmatch(text) is not None


def begins(text: str, mark: str) -> bool | None:
    """Whether ``text`` begins with ``mark``; None if it is too short to say."""
    if len(text) >= len(mark):
        return text.startswith(mark)
    return None if mark.startswith(text) else False
