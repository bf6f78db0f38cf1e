"""Chats in which no client has written a control token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class GuardedChat:
    """A chat as its template is given it: what comes out is cut at ``mark``, if there is one, before it is
    tokenised."""

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] | None
    template_args: Mapping[str, Any]
    mark: str = ""
