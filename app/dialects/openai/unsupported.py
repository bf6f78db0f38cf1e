"""Fields of OpenAI's API that no engine here can meet yet: refused by name, never ignored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.dialects.openai.chat.schema import ChatCompletionRequest, Message
from app.dialects.openai.completions.schema import CompletionRequest
from engines.errors import UnsupportedFeature

# Field to (what it asks for, whether a value asks for nothing).
_CHAT: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "functions": ("the older form of `tools`", lambda value: value == []),
    "function_call": ("the older form of `tool_choice`", lambda value: value in ("none", "auto")),
    "modalities": ("output other than text", lambda value: value == ["text"]),
    "audio": ("audio output", lambda value: False),
    "prediction": ("predicted output", lambda value: False),
    "web_search_options": ("web search", lambda value: False),
    "verbosity": ("a choice of verbosity", lambda value: value == "medium"),
}


def refuse_in_chat(body: ChatCompletionRequest) -> None:
    """Raise `UnsupportedFeature` for the first field that asks for what is not there yet."""
    for name, (feature, is_harmless) in _CHAT.items():
        value = getattr(body, name)
        if value is not None and not is_harmless(value):
            raise _refusal(feature, name)
    for i, message in enumerate(body.messages):
        _refuse_in_message(message, f"messages.{i}")


def refuse_in_completion(body: CompletionRequest) -> None:
    """As `refuse_in_chat`, for plain completions."""
    if body.suffix not in (None, ""):
        raise _refusal("suffix (filling in the middle)", "suffix")
    if body.best_of not in (None, 1, body.n):
        raise _refusal("best_of other than n", "best_of")
    if body.echo and body.logprobs is not None:
        raise _refusal("log probabilities of the prompt (echo together with logprobs)", "logprobs")


def _refuse_in_message(message: Message, where: str) -> None:
    if message.role == "function":
        raise _refusal("the older form of role `tool`", f"{where}.role")
    if message.function_call:
        raise _refusal("the older form of `tool_calls`", f"{where}.function_call")
    if message.audio:
        raise _refusal("audio input", f"{where}.audio")
    for j, part in enumerate(message.content if isinstance(message.content, list) else ()):
        if part.type not in ("text", "refusal"):
            raise _refusal(f"input of type {part.type}", f"{where}.content.{j}")


def _refusal(feature: str, param: str) -> UnsupportedFeature:
    return UnsupportedFeature(f"{feature} is not supported yet: leave `{param}` out", param=param)
