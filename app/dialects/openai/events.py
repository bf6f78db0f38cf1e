"""Events of OpenAI's streams: what chat and text completions share."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from app.sse import sse, to_json
from engines.base import Usage

# What stands in a frame's template where the text goes. No JSON text contains it: it is a control character.
_HOLE = "\x00"
_HOLE_JSON = json.dumps(_HOLE)


def now() -> int:
    return int(time.time())


class TextFrames:
    """Events that carry nothing but text, from a template: nearly all events, so they must be cheap."""

    def __init__(self, make: Callable[[int, str], dict[str, Any]]) -> None:
        """``make`` gives a choice's event with a text in it."""
        self._make = make
        self._templates: dict[int, tuple[bytes, bytes]] = {}

    def frame(self, index: int, text: str) -> bytes:
        template = self._templates.get(index)
        if template is None:
            before, after = sse(self._make(index, _HOLE)).split(_HOLE_JSON.encode())
            template = self._templates[index] = (before, after)
        return template[0] + to_json(text) + template[1]


def usage_info(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def printable(raw: bytes) -> str:
    """A token's bytes as text; half a character shows as U+FFFD."""
    return raw.decode("utf-8", "replace")
