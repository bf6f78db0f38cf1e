"""A task: a parsed request, whatever API it came by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.inference.media import MediaReference
from app.schemas.unknown_fields import UnknownField
from balancer.call import Target
from balancer.prefixes import BLOCK_CHARS, MAX_BLOCKS
from engines.base import NEW_ANSWER, Rendering, Sampling, SourceFile, Structure, ToolUse

# More of a conversation tells no two apart.
CONVERSATION_CHARS = BLOCK_CHARS * MAX_BLOCKS


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseTask:
    """A request for the work of a model, in terms of no API: what holds for every kind of it.

    ``needs`` pairs a capability that not every engine has with the field that asks for it. ``stream``: the
    answer comes as events. Of requests that wait, those with the lowest ``priority`` go first;
    ``keep_alive`` as in `Call`. ``defaults`` are fields, as the API names them, that the catalog or the model
    sets and the client did not. ``unknown`` are fields of the request that nobody knows; with ``must_fit`` a
    `max_tokens` beyond the context is refused instead of cut to what fits. ``media`` are the images and
    sounds that it refers to, which are loaded before a backend is asked.
    """

    target: Target
    needs: Mapping[str, str] = field(default_factory=dict)
    stream: bool = False
    priority: int = 0
    keep_alive: float | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    unknown: tuple[UnknownField, ...] = ()
    must_fit: bool = False
    media: tuple[MediaReference, ...] = ()

    def conversation(self) -> str:
        """The text whose beginning decides what a prefix cache is worth, as far as it counts."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(BaseTask):
    """A request for answers of generated text.

    ``messages`` are a conversation as chat templates take it (a role and one string, and what belongs to
    tool calls), made a prompt as ``rendering`` says. Where ``media`` are in a message, its content is a list
    of parts instead: text, and what `MediaList` makes. Without messages, each of ``prompts`` is a text or its
    token ids, and texts get the special tokens that the model wants if ``add_special``. ``n`` answers are
    generated for each prompt, or the best ``n`` of ``best_of``. ``max_tokens`` None is up to the context's
    end; ``logprobs`` and ``prompt_logprobs`` as in `GenerationRequest`. With a ``suffix`` an answer is what
    stands between a prompt and it, where ``files`` are beside them.

    ``include_usage`` ends a stream with the token counts, and ``continuous_usage`` tells those so far with
    every event; ``tell_token_ids`` tells the tokens themselves, ``tell_prompt_logprobs`` those of the
    prompt apart from its echo, ``tell_reasoning`` what was reasoned.
    ``echo`` puts the prompt in front of its answers.
    """

    messages: tuple[Mapping[str, Any], ...] | None = None
    rendering: Rendering = NEW_ANSWER
    prompts: tuple[str | tuple[int, ...], ...] = ()
    add_special: bool = True
    suffix: str | None = None
    files: tuple[SourceFile, ...] = ()
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
    prompt_logprobs: int | None = None
    best_of: int = 0
    tools: ToolUse | None = None
    structure: Structure | None = None
    include_usage: bool = False
    continuous_usage: bool = False
    tell_token_ids: bool = False
    tell_prompt_logprobs: bool = False
    tell_reasoning: bool = True
    echo: bool = False

    @property
    def candidates(self) -> int:
        """How many answers are generated for each prompt."""
        return self.best_of or self.n

    def conversation(self) -> str:
        text = ""
        for item in self.prompts if self.messages is None else self.messages:
            if len(text) >= CONVERSATION_CHARS:
                break
            text += json.dumps(_beginning(item))
        return text


def _beginning(item: Any) -> Any:
    if isinstance(item, Mapping):
        return {key: _beginning(value) for key, value in item.items()}
    if isinstance(item, list):
        return [_beginning(each) for each in item]
    return item[:CONVERSATION_CHARS] if isinstance(item, str | tuple) else item
