"""Schema of embeddings: requests and answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from app.dialects.openai.sampling import MAX_TOKENS, ServedFields, TokenId

MAX_INPUTS = 2048
"""OpenAI's limit, which clients split their texts by."""

Text = Annotated[str, Field(min_length=1)]
# Only the first wrong element is told of: there may be millions.
TokenIds = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]


class EmbeddingRequest(ServedFields):
    input: (
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)]
        | TokenIds
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)]
    ) = Field(description="A text, texts, token ids of this model, or lists of them.")
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="base64: of 32-bit floating-point numbers, little end first."
    )
    dimensions: int | None = Field(
        None, ge=1, le=MAX_TOKENS, description="Shorter vectors, of models that were made for it."
    )
    truncate_prompt_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | Literal[-1] | None = Field(
        None,
        description="Cut inputs after so many tokens; -1: after as many as the model takes. "
        "Unset: what is longer than that is refused.",
    )
    truncate: bool | Literal["NONE", "END", "START"] = Field(
        False, description="true or END: as truncate_prompt_tokens -1."
    )
    add_special_tokens: bool = Field(
        True, description="false: texts get no special tokens in front of and behind them."
    )

    # Refused unless they ask for nothing (see parse.py).
    normalize: Any = Field(None, description="true only: vectors have length 1.")
    embd_normalize: Any = Field(None, description="2 only: vectors have length 1.")
    embed_dtype: Any = Field(None, description="Refused where it asks for something.")
    endianness: Any = Field(None, description="Refused where it asks for something.")
    late_chunking: Any = Field(None, description="Refused where it asks for something.")
    truncation_side: Any = Field(None, description="Refused where it asks for something.")
    messages: Any = Field(None, description="Refused: send texts.")


class Embedding(BaseModel):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str = Field(description="Of length 1.")


class EmbeddingUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(BaseModel):
    """One vector for each input, in their order."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
