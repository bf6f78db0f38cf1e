"""The fake engine's chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from engines.base import Media


def render(messages: Sequence[Mapping[str, Any]], media: Sequence[Media] = ()) -> str:
    """A line for each message. Of an image or a sound it says what it is: a word of its kind and key."""
    return "".join(_line(message, media) for message in messages)


def _line(message: Mapping[str, Any], media: Sequence[Media]) -> str:
    calls = message.get("tool_calls")
    return f"{message['role']}: {_text(message['content'], media)}{json.dumps(calls) if calls else ''}\n"


def _text(content: Any, media: Sequence[Media]) -> str:
    if not isinstance(content, list):
        return content or ""
    parts = (each["text"] if each["type"] == "text" else _word(media[each["index"]]) for each in content)
    return "".join(parts)


def _word(media: Media) -> str:
    return f" {media.kind}_{media.key[:8]} "
