"""Calls of tools, put together: OpenAI streams their arguments as text, Ollama tells whole objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from app.inference.answer import CalledTool


class StreamedCalls:
    """The calls of one answer, as far as they came. One is whole when the next begins, or the answer ends."""

    def __init__(self) -> None:
        self._calls: dict[int, CalledTool] = {}
        self._told = 0

    def add(self, delta: Mapping[str, Any]) -> None:
        """Note one of an event's ``tool_calls``."""
        call = self._calls.setdefault(int(delta.get("index") or 0), CalledTool())
        function = delta.get("function") or {}
        call.id = call.id or delta.get("id") or ""
        call.name = call.name or function.get("name") or ""
        call.arguments += function.get("arguments") or ""

    def whole(self, *, is_over: bool) -> tuple[list[dict[str, Any]], str]:
        """The calls that are whole and were not told yet; and those whose arguments are no JSON object, which
        Ollama's API has no place for, as text."""
        ready = sorted(self._calls)[self._told : None if is_over else -1]
        self._told += len(ready)
        found: list[dict[str, Any]] = []
        text = ""
        for index in ready:
            call = self._calls[index]
            arguments = _object(call.arguments)
            if arguments is None:
                text += f"{call.name}({call.arguments})"
                continue
            function = {"index": index, "name": call.name, "arguments": arguments}
            found.append({"id": call.id, "function": function})
        return found, text


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
