"""Messages of Ollama's chats, as OpenAI's API has them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from app.dialects.ollama.schema import OllamaMessage, OllamaToolCall

# How base64 of a picture begins, by its kind.
_BEGINNINGS = {"/9j/": "jpeg", "iVBORw0KGgo": "png", "R0lGOD": "gif", "UklGR": "webp"}


def openai_messages(messages: Sequence[OllamaMessage]) -> list[dict[str, Any]]:
    """The same conversation. Calls without an id get one of their place, and a tool's message that names no
    call answers the next one that waits: of the function that it names, if it names one."""
    waiting: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for place, message in enumerate(messages):
        if message.role == "tool":
            found.append(_of_tool(message, waiting, place))
            continue
        calls = [_call(call, f"call_{place}_{i}") for i, call in enumerate(message.tool_calls or ())]
        waiting += calls
        told: dict[str, Any] = {"role": message.role, "content": content(message.content, message.images)}
        if calls:
            told |= {"tool_calls": calls, "content": told["content"] or None}
        if message.thinking:
            told["reasoning_content"] = message.thinking
        found.append(told)
    return found


def content(text: str, images: Sequence[str] | None) -> str | list[dict[str, Any]]:
    """Text with pictures in front of it, as Ollama has them."""
    if not images:
        return text
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": _url(each)}} for each in images]
    return [*parts, {"type": "text", "text": text}] if text else parts


def _url(image: str) -> str:
    if image.startswith("data:"):
        return image
    kind = next((kind for start, kind in _BEGINNINGS.items() if image.startswith(start)), "png")
    return f"data:image/{kind};base64,{image}"


def _call(call: OllamaToolCall, own_id: str) -> dict[str, Any]:
    function = {"name": call.function.name, "arguments": json.dumps(call.function.arguments)}
    return {"id": call.id or own_id, "type": "function", "function": function}


def _of_tool(message: OllamaMessage, waiting: list[dict[str, Any]], place: int) -> dict[str, Any]:
    name, wanted = message.tool_name or message.name, message.tool_call_id
    fitting = [
        call
        for call in waiting
        if (call["id"] == wanted if wanted else name is None or call["function"]["name"] == name)
    ]
    if fitting:
        waiting.remove(fitting[0])
    answered = fitting[0]["id"] if fitting else wanted or f"call_{place}"
    return {"role": "tool", "tool_call_id": answered, "content": message.content}
