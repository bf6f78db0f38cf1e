"""Schema of text completions: requests and answers."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, Field

from app.dialects.openai.peers import PeerFields
from app.dialects.openai.sampling import (
    MAX_CHOICES,
    MAX_TOKENS,
    MINUS_ONE_IS_NONE,
    FinishReason,
    PromptLogprobs,
    TokenId,
    UsageInfo,
)
from app.dialects.openai.structure import StructuredOutputs

# Only the first wrong element is told of: there may be millions.
TokenIds = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]


class CompletionRequest(PeerFields):
    null_counts: ClassVar[frozenset[str]] = frozenset({"max_tokens"})

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=MAX_CHOICES, fail_fast=True)]
        | TokenIds
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_CHOICES, fail_fast=True)]
    ) = Field(description="Text, texts, token ids, or lists of token ids.")
    max_tokens: Annotated[int | None, MINUS_ONE_IS_NONE] = Field(
        16, ge=0, le=MAX_TOKENS, description="null or -1: up to the context's end."
    )
    logprobs: int | None = Field(
        None,
        ge=0,
        le=5,
        description="Tell the log probabilities of the tokens, with so many alternatives each.",
    )
    echo: bool = Field(
        False, description="Put the prompt in front of the answer, and with logprobs those of its tokens too."
    )
    add_special_tokens: bool = Field(
        True, description="false: the prompt gets no token in front of it that it does not have."
    )
    structured_outputs: StructuredOutputs | None = Field(
        None, description="What the answer must match, under the names that vLLM gives it."
    )

    suffix: str | None = Field(
        None,
        description="The answer is what stands between the prompt and this text, for models that can fill in "
        "the middle (`fim` in their capabilities).",
    )
    best_of: int | None = Field(
        None,
        ge=1,
        le=MAX_CHOICES,
        description="Generate so many answers and tell those n whose tokens are the likeliest on average.",
    )


class CompletionLogprobs(BaseModel):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class CompletionChoice(BaseModel):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason
    prompt_logprobs: PromptLogprobs | None = Field(None, description="Only if they were asked for.")


class Completion(BaseModel):
    """The answer; with `stream` it comes in pieces of the same shape."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: UsageInfo
