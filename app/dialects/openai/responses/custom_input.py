"""Reader of custom tools' inputs: the text in the arguments of the function that stands for such a tool."""

from __future__ import annotations

import json
import re

_HEAD = '{"input":"'
_SPACES = " \t\r\n"
# What is whole at the beginning of the inside of a JSON string. The halves of a pair belong together.
_WHOLE = re.compile(
    r'(?:[^"\\]+|\\["\\/bfnrt]|\\u(?![dD][89abAB])[0-9a-fA-F]{4}'
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})*"
)
_LONGEST_ESCAPE = 12


class CustomInput:
    """The input of one call, read from ``{"input": "…"}`` as it comes; from anything else at its end."""

    def __init__(self) -> None:
        self._arguments: list[str] = []
        self._matched = 0  # characters of `_HEAD`
        self._is_other = self._is_closed = False
        self._text = ""  # as JSON, and not read yet

    def feed(self, arguments: str) -> str:
        """The part of the input that became certain with a piece of the arguments."""
        if self._is_closed:
            return ""
        if self._matched < len(_HEAD):
            self._arguments.append(arguments)
            arguments = self._skip_head(arguments)
        if self._is_other or self._matched < len(_HEAD):
            return ""
        self._text += arguments
        return self._take()

    def finish(self) -> str:
        """The part of the input that was held back."""
        if self._matched < len(_HEAD) or self._is_other:
            return _found_in("".join(self._arguments))
        return self._take(is_last=True)

    def _skip_head(self, piece: str) -> str:
        if self._is_other:
            return ""
        for position, character in enumerate(piece):
            if self._matched == len(_HEAD):
                return piece[position:]
            if character == _HEAD[self._matched]:
                self._matched += 1
            elif character not in _SPACES or 1 < self._matched < 8:
                self._is_other = True
                self._matched = 0
                return ""
        return ""

    def _take(self, *, is_last: bool = False) -> str:
        found: list[str] = []
        while self._text and not self._is_closed:
            whole = _WHOLE.match(self._text)
            assert whole is not None
            found.append(json.loads(f'"{whole[0]}"', strict=False))
            rest = self._text[whole.end() :]
            self._is_closed = rest.startswith('"')
            if not is_last and len(rest) < _LONGEST_ESCAPE:
                self._text = rest
                break
            # What is no escape stands for itself.
            self._text = rest[1:]
            found.append("" if self._is_closed else rest[:1])
        return "".join(found)


def _found_in(arguments: str) -> str:
    """The input in arguments that a model made up: their only text, or all of them."""
    try:
        found = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    if not isinstance(found, dict):
        return found if isinstance(found, str) else arguments
    texts = [value for value in found.values() if isinstance(value, str)]
    if isinstance(found.get("input"), str):
        return str(found["input"])
    return texts[0] if len(texts) == len(found) == 1 else arguments if found else ""
