"""A task: a parsed request, whatever API it came by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.schemas.unknown_fields import UnknownField
from balancer.call import Target
from balancer.prefixes import BLOCK_CHARS, MAX_BLOCKS
from engines.base import NEW_ANSWER, Rendering, Sampling, Structure, ToolUse

# More of a conversation tells no two apart.
CONVERSATION_CHARS = BLOCK_CHARS * MAX_BLOCKS


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A request for answers, in terms of no API.

    ``messages`` are a conversation as chat templates take it (a role and one string, and what belongs to
    tool calls), made a prompt as ``rendering`` says; without one, each of ``prompts`` is a text or its token
    ids, and texts get the special tokens that the model wants if ``add_special``. ``n`` answers are generated
    for each prompt. ``max_tokens`` None is up to the context's end; ``logprobs`` as in `GenerationRequest`.
    ``needs`` pairs a capability that not every engine has with the field that asks for it.

    ``include_usage`` ends a stream with the token counts, and ``continuous_usage`` tells those so far with
    every event; ``tell_token_ids`` tells the tokens themselves, ``tell_reasoning`` what was reasoned.
    ``echo`` puts the prompt in front of its answers. Of requests that wait, those with the lowest
    ``priority`` go first; ``keep_alive`` as in `Call`. ``defaults`` are sampling fields, as the API names
    them, that the catalog or the model sets and the client did not. ``unknown`` are fields of the request
    that nobody knows; with ``must_fit`` a `max_tokens` beyond the context is refused instead of cut to what
    fits.
    """

    target: Target
    messages: tuple[Mapping[str, Any], ...] | None = None
    rendering: Rendering = NEW_ANSWER
    prompts: tuple[str | tuple[int, ...], ...] = ()
    add_special: bool = True
    sampling: Sampling = field(default_factory=Sampling)
    n: int = 1
    max_tokens: int | None = None
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop: bool = False
    show_special: bool = False
    ignore_eos: bool = False
    logprobs: int | None = None
    tools: ToolUse | None = None
    structure: Structure | None = None
    needs: Mapping[str, str] = field(default_factory=dict)
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    tell_token_ids: bool = False
    tell_reasoning: bool = True
    echo: bool = False
    priority: int = 0
    keep_alive: float | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    unknown: tuple[UnknownField, ...] = ()
    must_fit: bool = False

    def conversation(self) -> str:
        """The text whose beginning decides what a prefix cache is worth, as far as it counts."""
        text = ""
        for item in self.prompts if self.messages is None else self.messages:
            if len(text) >= CONVERSATION_CHARS:
                break
            text += json.dumps(_beginning(item))
        return text


def _beginning(item: Any) -> Any:
    if isinstance(item, Mapping):
        return {key: _beginning(value) for key, value in item.items()}
    return item[:CONVERSATION_CHARS] if isinstance(item, str | tuple) else item
