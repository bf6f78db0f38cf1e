"""The fake engine's chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def render(messages: Sequence[Mapping[str, Any]]) -> str:
    """A line for each message."""
    return "".join(map(_line, messages))


def _line(message: Mapping[str, Any]) -> str:
    calls = message.get("tool_calls")
    return f"{message['role']}: {message['content'] or ''}{json.dumps(calls) if calls else ''}\n"
