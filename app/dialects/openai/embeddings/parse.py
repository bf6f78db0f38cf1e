"""Parser of embeddings: a request's JSON to a task."""

from __future__ import annotations

from typing import Any

from app.dialects.openai.embeddings.schema import MAX_INPUTS, EmbeddingRequest
from app.dialects.openai.prompts import text_or_token_ids
from app.inference.dialect import Resolve
from app.inference.embedding import EmbeddingTask
from app.schemas.unknown_fields import read_body
from engines.errors import RequestError, UnsupportedFeature

# Fields of other servers: what each asks for, and the values that ask for what there is anyway.
_NEUTRAL: dict[str, tuple[str, tuple[Any, ...]]] = {
    "normalize": ("vectors of another length than 1", (True,)),
    "embd_normalize": ("vectors of another length than 1", (2,)),
    "embed_dtype": ("numbers other than 32-bit ones", ("float32",)),
    "endianness": ("bytes with the big end first", ("native", "little")),
    "late_chunking": ("embeddings of the parts of a text", (False,)),
    "truncation_side": ("cutting texts at their beginning", ("right",)),
    "messages": ("embeddings of chats", ([],)),
}


def parse(document: Any, resolve: Resolve) -> EmbeddingTask:
    """Raises pydantic's `ValidationError`, or `EngineError` for what cannot be met."""
    _check_inputs(document)
    body, unknown = read_body(EmbeddingRequest, document)
    _refuse(body)
    resolved = resolve(body.model)
    resolved.check_purpose("embeddings")
    return EmbeddingTask(
        target=resolved.target,
        inputs=text_or_token_ids(body.input),
        add_special=body.add_special_tokens,
        dimensions=body.dimensions,
        most=_most(body),
        as_base64=body.encoding_format == "base64",
        needs={} if resolved.target.adapter is None else {"adapters": "model"},
        priority=body.priority,
        keep_alive=body.keep_alive,
        unknown=unknown,
    )


def _check_inputs(document: Any) -> None:
    """Say what is wrong with a list of inputs better than its schema, which sees several kinds of lists."""
    inputs = document.get("input") if isinstance(document, dict) else None
    if not isinstance(inputs, list) or (inputs and isinstance(inputs[0], int)):
        return
    if not 0 < len(inputs) <= MAX_INPUTS:
        raise RequestError(
            f"input has {len(inputs)} texts: give at least 1 and at most {MAX_INPUTS}", "input"
        )
    for index, item in enumerate(inputs):
        if item in ("", []):
            place = f"input.{index}"
            raise RequestError(f"{place} is empty: give at least 1 character, or 1 token", place)


def _most(body: EmbeddingRequest) -> int | None:
    if body.truncate_prompt_tokens is not None:
        return body.truncate_prompt_tokens
    return -1 if body.truncate in (True, "END") else None


def _refuse(body: EmbeddingRequest) -> None:
    """Raise `UnsupportedFeature` for the first field that asks for what is not there."""
    for name, (feature, neutral) in _NEUTRAL.items():
        value = getattr(body, name)
        if value is not None and value not in neutral:
            raise UnsupportedFeature(f"{feature}: not supported, leave `{name}` out", param=name)
    if body.truncate == "START":
        raise UnsupportedFeature("texts can be cut at their end only: `truncate` END", param="truncate")
