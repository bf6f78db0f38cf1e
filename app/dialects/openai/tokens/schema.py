"""Schema of requests for tokens, and of the answers, which have the fields of vLLM's and llama-server's."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from app.dialects.openai.sampling import TokenId
from app.schemas.common import KeepAlive, WireModel

MAX_PARTS = 2**20

Part = str | TokenId


class TokenFields(WireModel):
    """What every request for tokens may say besides."""

    model: str = Field("", description="Unset: the default model.")
    keep_alive: KeepAlive = None


class ToldTexts(WireModel):
    """How tokens are told."""

    return_token_strs: bool = Field(False, description="Tell the text of each token too, in `token_strs`.")
    with_pieces: bool = Field(
        False, description="Tell `tokens` as llama-server does, each with its `piece`: text, or bytes of it."
    )


class TokenizeRequest(TokenFields, ToldTexts):
    """A text; or with `messages`, and what else a chat completion may have, a chat."""

    prompt: str | None = Field(None, description="vLLM's name: special tokens are added unless told not to.")
    content: str | Annotated[list[Part], Field(max_length=MAX_PARTS, fail_fast=True)] | None = Field(
        None, description="llama-server's name, for texts and token ids: none are added unless told to."
    )
    add_special_tokens: bool | None = Field(
        None, description="Whether the special tokens that the model wants are put in front."
    )
    add_special: bool | None = Field(None, description="Its other name, from llama-server.")
    parse_special: bool = Field(True, description="Special tokens in a text count as such: no other way yet.")
    messages: Any = Field(None, description="As in a chat completion.")


class DetokenizeRequest(TokenFields):
    tokens: Annotated[list[TokenId], Field(max_length=MAX_PARTS, fail_fast=True)] = Field(
        description="Token ids of this model."
    )


class TokenPiece(BaseModel):
    id: int
    piece: str | list[int]


class Tokenized(BaseModel):
    count: int
    max_model_len: int = Field(description="The context length.")
    tokens: list[int] | list[TokenPiece]
    token_strs: list[str] | None = None


class Detokenized(BaseModel):
    prompt: str
    content: str = Field(description="The same, as llama-server calls it.")


class RenderedChat(BaseModel):
    """The prompt of a chat, and how it would be answered."""

    request_id: str
    model: str
    token_ids: list[int]
    prompt: str
    sampling_params: dict[str, Any] = Field(description="In vLLM's words.")


class AppliedTemplate(BaseModel):
    prompt: str


class InputTokens(BaseModel):
    input_tokens: int = Field(description="What `usage.prompt_tokens` of the same request would be.")
