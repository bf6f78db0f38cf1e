"""Tools: the functions that a model may call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The tools of one chat request. ``required``: every answer calls some of them; ``named``: this one.

    ``definitions`` are functions in OpenAI's form, ``{"type": "function", "function": {"name", …}}``.
    Without ``parallel`` an answer has one call at most.
    """

    definitions: tuple[Mapping[str, Any], ...]
    required: bool = False
    named: str | None = None
    parallel: bool = True

    @property
    def is_forced(self) -> bool:
        return self.required or self.named is not None
