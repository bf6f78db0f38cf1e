"""Schema of llama-server's `/infill`: requests and answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from app.dialects.openai.peers import PeerFields
from app.dialects.openai.sampling import MAX_TOKENS, MINUS_ONE_IS_NONE
from app.schemas.common import WireModel

MAX_FILES = 256


class Extra(WireModel):
    filename: str = Field("tmp", description="The file's name.")
    text: str = Field(description="What is in it.")


class InfillRequest(PeerFields):
    model: str = Field("", description="Unset: the default model.")
    input_prefix: str = Field(description="What stands before the gap.")
    input_suffix: str = Field(description="What stands behind it.")
    prompt: str = Field("", description="What is in the gap already, from its beginning.")
    input_extra: Annotated[list[Extra], Field(max_length=MAX_FILES, fail_fast=True)] = Field(
        [], description="Parts of other files."
    )
    max_tokens: Annotated[int | None, MINUS_ONE_IS_NONE] = Field(
        None,
        ge=0,
        le=MAX_TOKENS,
        description="Most tokens to generate; unset or -1: up to the context's end.",
    )
    n: Literal[1] = Field(1, description="1 only.")

    # Editors send them with every request, and are served all the same.
    samplers: Any = Field(None, description="Accepted and not used.")
    t_max_prompt_ms: Any = Field(None, description="Accepted and not used.")
    t_max_predict_ms: Any = Field(None, description="Accepted and not used.")


class Infilled(BaseModel):
    """The answer; with `stream` it comes in pieces, of which the last has `stop: true`."""

    index: Literal[0]
    content: str
    stop: bool
    model: str
    tokens_predicted: int
    tokens_evaluated: int
    tokens_cached: int
    truncated: bool
    stop_type: Literal["eos", "limit"]
