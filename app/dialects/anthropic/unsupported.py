"""Fields of Anthropic's API that are known and change nothing here; one that would is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.dialects.anthropic.schema import CountTokensRequest
from engines.errors import UnsupportedFeature


def _always(value: Any) -> bool:
    return True


def _never(value: Any) -> bool:
    return False


# Field to (what it asks for, whether the answer is the same without it). Null always is.
_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "cache_control": ("a place in the prompt cache", _always),
    "compaction": ("compaction of the conversation", _never),
    "container": ("a container that runs code", _never),
    # What it leaves out of the prompt may stay in it.
    "context_management": ("rules by which old content is left out", _always),
    "diagnostics": ("the reason of a cache miss", _always),
    "fallback_credit_token": ("a price", _always),
    "fallbacks": ("models that answer in the place of an overloaded one", _always),
    "inference_geo": ("a place where the model runs", _always),
    "mcp_servers": ("MCP servers that the server calls", lambda value: value == []),
    "metadata": ("notes on the request", _always),
    "service_tier": ("a price for a speed", _always),
    "speed": ("a price for a speed", _always),
    "thread": ("a conversation that the server keeps", _never),
    "user_profile_id": ("an end user's id", _always),
    "workspace_id": ("a part of an account", _always),
}


def refuse(body: CountTokensRequest) -> None:
    """Raise `UnsupportedFeature` for the first field that asks for what is not there."""
    for name, (feature, is_harmless) in _FIELDS.items():
        value = getattr(body, name)
        if value is not None and not is_harmless(value):
            raise UnsupportedFeature(f"{feature} is not supported: leave `{name}` out", param=name)
