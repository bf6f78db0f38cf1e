"""Fields of OpenAI's API that are known and change nothing here; where one would, it is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.dialects.openai.chat.schema import ChatCompletionRequest, Message
from engines.errors import UnsupportedFeature


def _always(value: Any) -> bool:
    return True


def _never(value: Any) -> bool:
    return False


# Field to (what it asks for, whether the answer is the same without it). Null always is.
_CHAT: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "audio": ("audio output", _never),
    "function_call": ("the older form of `tool_choice`", lambda value: value in ("none", "auto")),
    "functions": ("the older form of `tools`", lambda value: value == []),
    "metadata": ("notes on a stored answer", _always),
    "modalities": ("output other than text", lambda value: value == ["text"]),
    "moderation": ("moderation of prompt and answer", _never),
    "prediction": ("speed for an answer that is known in part", _always),
    "prompt_cache_key": ("a place in OpenAI's prompt cache", _always),
    "prompt_cache_options": ("a way to use OpenAI's prompt cache", _always),
    "prompt_cache_retention": ("a time in OpenAI's prompt cache", _always),
    "safety_identifier": ("an end user's id", _always),
    "service_tier": ("a price for a speed", _always),
    "store": ("storage of the answer", _always),
    "user": ("an end user's id", _always),
    "verbosity": ("a choice of verbosity", lambda value: value == "medium"),
    "web_search_options": ("web search", _never),
}


def refuse_in_chat(body: ChatCompletionRequest) -> None:
    """Raise `UnsupportedFeature` for the first field that asks for what is not there yet."""
    for name, (feature, is_harmless) in _CHAT.items():
        value = getattr(body, name)
        if value is not None and not is_harmless(value):
            raise _refusal(feature, name)
    for i, message in enumerate(body.messages):
        _refuse_in_message(message, f"messages.{i}")


def _refuse_in_message(message: Message, where: str) -> None:
    if message.role == "function":
        raise _refusal("the older form of role `tool`", f"{where}.role")
    if message.function_call:
        raise _refusal("the older form of `tool_calls`", f"{where}.function_call")
    if message.audio:
        raise _refusal("audio input", f"{where}.audio")
    for j, part in enumerate(message.content if isinstance(message.content, list) else ()):
        if part.type in ("file", "video_url"):
            raise _refusal(f"input of type {part.type}", f"{where}.content.{j}")


def _refusal(feature: str, param: str) -> UnsupportedFeature:
    return UnsupportedFeature(f"{feature} is not supported yet: leave `{param}` out", param=param)
