"""Requests: prompts, and what is to be generated from them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engines.base.answers import AnswerPlan
from engines.base.media import Media
from engines.base.sampling import Sampling
from engines.base.structure import Structure


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids ready for prefill; ``text`` is what they were made from, where that is known, and
    ``variables`` are those that a request gave the chat template. An answer ends with any of ``ends`` too.

    ``media`` are the images and sounds in it, in their order. Each takes as many of the ``token_ids`` as it
    has positions: which ids these are is the engine's own affair."""

    token_ids: tuple[int, ...]
    text: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    ends: tuple[int, ...] = ()
    media: tuple[Media, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that is shown beside the one in which something is to be filled in."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Rendering:
    """The way in which a chat becomes a prompt.

    ``template_args`` are further variables of the chat template. ``reasoning_effort`` is given to templates
    that take one, or switches their reasoning on or off; others refuse it, or leave it aside unless they
    ``must_take_effort``. ``reasons`` is whether the model is to reason, for templates that can switch that.
    ``add_generation_prompt``: the prompt ends where the answer begins. ``continue_final``: it ends inside the
    last message instead, with that message's text.
    """

    template_args: Mapping[str, Any] = field(default_factory=dict)
    reasoning_effort: str | None = None
    must_take_effort: bool = True
    reasons: bool | None = None
    add_generation_prompt: bool = True
    continue_final: bool = False


NEW_ANSWER = Rendering()


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One sequence to generate.

    ``max_tokens`` None means "up to the context's end"; what it asks for beyond that is cut, or refused if it
    ``must_fit``. ``logprobs`` None switches log probabilities off; a number asks for that many alternatives a
    token (0: the chosen token's only). With ``logprob_token_ids`` the alternatives are these. ``adapter``
    names a LoRA adapter that the model was loaded with. An engine refuses with `UnsupportedFeature` what its
    capabilities do not name.

    ``stop_token_ids`` end an answer as the model's end tokens do, also with ``ignore_eos``. What ends an
    answer, a stop string or such a token, is no part of its text, except with ``include_stop``. Special
    tokens have no text, except with ``show_special``.

    With ``prompt_logprobs`` the first chunk tells the log probabilities of the prompt, with so many
    alternatives a token, and those of the answer tell its end token too; ``max_tokens`` may be 0.

    ``answer`` tells reasoning and tool calls from content; without it all text is content. ``structure`` is
    the form of what follows the reasoning.

    ``answer_id`` names this answer and no other, on whatever backend it is made: the ids in it, such as those
    of calls, follow from it.

    ``generated`` are token ids of this answer that were generated before, elsewhere. They count as
    generated (``max_tokens``, ``min_tokens``, penalties, `Usage.completion_tokens`) but are not sent again,
    neither as `Chunk.token_ids` nor as text; what of their text was held back (half a character, the
    beginning of a stop string) still is, without its log probabilities, which only that engine knew.
    Drawing goes on with a fresh generator, see `generator_seed`: the same each time, but not what would
    have come, except from an engine whose draws depend on their number alone (MLX).
    """

    request_id: str
    prompt: Prompt
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop: bool = False
    show_special: bool = False
    ignore_eos: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logprob_token_ids: tuple[int, ...] = ()
    structure: Structure | None = None
    answer: AnswerPlan | None = None
    adapter: str | None = None
    generated: tuple[int, ...] = ()
    must_fit: bool = False
    answer_id: str = ""

    @property
    def generator_seed(self) -> int | None:
        """Seeds the generator that draws: ``sampling.seed``, and in an answer that goes on one derived
        from it and the number of tokens there are, as the first draws must not be repeated."""
        seed = self.sampling.seed
        if seed is None or not self.generated:
            return seed
        return zlib.crc32(b"%d/%d" % (seed, len(self.generated)))
