"""Fields of OpenAI's API that are known and change nothing here; where one would, it is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

from app.dialects.openai.chat.schema import ChatCompletionRequest, Message
from engines.errors import UnsupportedFeature

Table = Mapping[str, tuple[str, Callable[[Any], bool]]]
"""Field to (what it asks for, whether the answer is the same without it). Null always is."""


def always(value: Any) -> bool:
    return True


def never(value: Any) -> bool:
    return False


_CHAT: Table = {
    "audio": ("audio output", never),
    "function_call": ("the older form of `tool_choice`", lambda value: value in ("none", "auto")),
    "functions": ("the older form of `tools`", lambda value: value == []),
    "metadata": ("notes on a stored answer", always),
    "modalities": ("output other than text", lambda value: value == ["text"]),
    "moderation": ("moderation of prompt and answer", never),
    "prediction": ("speed for an answer that is known in part", always),
    "prompt_cache_key": ("a place in OpenAI's prompt cache", always),
    "prompt_cache_options": ("a way to use OpenAI's prompt cache", always),
    "prompt_cache_retention": ("a time in OpenAI's prompt cache", always),
    "safety_identifier": ("an end user's id", always),
    "service_tier": ("a price for a speed", always),
    "store": ("storage of the answer", always),
    "user": ("an end user's id", always),
    "verbosity": ("a choice of verbosity", lambda value: value == "medium"),
    "web_search_options": ("web search", never),
}


def refuse(body: BaseModel, table: Table, prefix: str = "") -> None:
    """Raise `UnsupportedFeature` for the first field of ``body`` that asks for what is not there.

    ``prefix`` is where the body stands in the request.
    """
    for name, (feature, is_harmless) in table.items():
        value = getattr(body, name)
        if value is not None and not is_harmless(value):
            raise unsupported(feature, f"{prefix}{name}")


def refuse_in_chat(body: ChatCompletionRequest) -> None:
    """Raise `UnsupportedFeature` for the first field that asks for what is not there yet."""
    refuse(body, _CHAT)
    for i, message in enumerate(body.messages):
        _refuse_in_message(message, f"messages.{i}")


def _refuse_in_message(message: Message, where: str) -> None:
    if message.role == "function":
        raise unsupported("the older form of role `tool`", f"{where}.role")
    if message.function_call:
        raise unsupported("the older form of `tool_calls`", f"{where}.function_call")
    if message.audio:
        raise unsupported("audio input", f"{where}.audio")
    for j, part in enumerate(message.content if isinstance(message.content, list) else ()):
        if part.type in ("file", "video_url"):
            raise unsupported(f"input of type {part.type}", f"{where}.content.{j}")


def unsupported(feature: str, param: str) -> UnsupportedFeature:
    """The refusal of what the field ``param`` asks for."""
    return UnsupportedFeature(f"{feature} is not supported yet: leave `{param}` out", param=param)
