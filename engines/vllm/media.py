"""Media in vLLM's prompts: pictures that were decoded here, so that vLLM fetches and opens nothing itself."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engines.base import Media, Prompt
from engines.errors import RequestError
from engines.text.templates.media_marks import MediaMarks
from engines.vllm.sampling import is_request_fault, request_error

# vLLM's words for what we call by its sense.
_SENSES = {"image": "vision"}


@dataclass(frozen=True, slots=True)
class Rendered:
    """A chat as its template shows it: text, or token ids from a tokenizer that renders chats itself.
    ``data`` are its media as vLLM wants them."""

    prompt: str | tuple[int, ...]
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MediaPrompt(Prompt):
    """A prompt with media: ``inputs`` is what vLLM's engine takes, with ``token_ids`` in it."""

    inputs: Mapping[str, Any] = field(default_factory=dict)


def senses_of(llm: Any) -> set[str]:
    """Those of the capabilities "vision" and "audio" that the model has and that are served here."""
    if not llm.model_config.is_multimodal_model:
        return set()
    limits = llm.renderer.get_mm_processor().info.allowed_mm_limits
    return {sense for kind, sense in _SENSES.items() if limits.get(kind)}


def with_pictures(
    messages: Sequence[Mapping[str, Any]], marks: MediaMarks, media: Sequence[Media], pictures: Sequence[Any]
) -> list[Mapping[str, Any]]:
    """``messages``, whose content is text, with vLLM's content parts in the place of ``marks``."""

    def part(each: str | int) -> dict[str, Any]:
        if isinstance(each, str):
            return {"type": "text", "text": each}
        # By the uuid vLLM knows a picture again.
        return {"type": "image_pil", "image_pil": pictures[each], "uuid": media[each].key}

    def content(text: Any) -> Any:
        found = marks.parts(text) if isinstance(text, str) else []
        return [part(each) for each in found if each != ""] if len(found) > 1 else text

    return [{**message, "content": content(message.get("content"))} for message in messages]


async def expanded(renderer: Any, prompt: Prompt, rendered: Rendered, media: Sequence[Media]) -> MediaPrompt:
    """``prompt`` with as many tokens in the place of each picture as it has positions.

    Raises `RequestError` for what the model cannot take.
    """
    tokens = {"prompt_token_ids": [*prompt.token_ids], **rendered.data}
    try:
        # Its other cache counts on every prompt being sent to the engine's process, in this order.
        inputs = await renderer.process_for_engine_async(tokens, time.time(), skip_mm_cache=True)
    except Exception as error:
        if not is_request_fault(error) and not isinstance(error, RuntimeError):
            raise
        raise RequestError(f"the model cannot take the images: {request_error(error)}", "messages") from error
    return MediaPrompt(
        tuple(inputs["prompt_token_ids"]),
        prompt.text,
        prompt.variables,
        prompt.ends,
        tuple(media),
        inputs=inputs,
    )


def engine_input(prompt: Prompt, generated: Sequence[int]) -> dict[str, Any]:
    """What vLLM's engine takes for ``prompt``, and what of its answer there is already."""
    token_ids = [*prompt.token_ids, *generated]
    if isinstance(prompt, MediaPrompt):
        return {**prompt.inputs, "prompt_token_ids": token_ids}
    return {"type": "token", "prompt_token_ids": token_ids}
