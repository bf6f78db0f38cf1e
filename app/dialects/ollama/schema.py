"""Schema of the requests of Ollama's API that a model answers, and of the answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator

from app.dialects.ollama.options import Options
from app.dialects.openai.chat.schema import MAX_MESSAGES, MAX_PARTS
from app.dialects.openai.embeddings.schema import MAX_INPUTS
from app.dialects.openai.sampling import MAX_TOKENS, MAX_TOP_LOGPROBS
from app.dialects.openai.structure import JsonObject
from app.dialects.openai.tools import MAX_TOOLS
from app.schemas.common import KeepAlive, WireModel

_NANOSECONDS = "In nanoseconds."


class OllamaCalledFunction(WireModel):
    name: str = Field(description="The function's name.")
    arguments: dict[str, Any] = Field(description="An object, not text as in OpenAI's API.")
    index: int | None = Field(None, description="Accepted, as answers sent back have it, and not used.")


class OllamaToolCall(WireModel):
    function: OllamaCalledFunction = Field(description="What was called.")
    id: str | None = Field(None, description="The call's id; unset: its place in the conversation.")
    type: Any = Field(None, description="Accepted and not used.")


class OllamaMessage(WireModel):
    role: Literal["system", "user", "assistant", "tool"] = Field(description="Who says it.")
    content: str = Field("", description="The text.")
    thinking: str | None = Field(None, description="Of an assistant's message: its reasoning.")
    images: Annotated[list[str], Field(fail_fast=True, max_length=MAX_PARTS)] | None = Field(
        None, description="Pictures, in base64."
    )
    tool_calls: Annotated[list[OllamaToolCall], Field(fail_fast=True, max_length=MAX_TOOLS)] | None = Field(
        None, description="Of an assistant's message."
    )
    tool_name: str | None = Field(None, description="Of a tool's message: the function that it answers for.")
    name: str | None = Field(None, description="Older name of tool_name.")
    tool_call_id: str | None = Field(None, description="Of a tool's message: the call that it answers.")


class OllamaFields(WireModel):
    """Fields of all requests to a model."""

    model: str = Field(min_length=1, description="A model's name; `:latest` behind it changes nothing.")
    keep_alive: KeepAlive = None
    options: Options | None = Field(None, description="How tokens are drawn, and more.")


class OllamaGeneratingFields(OllamaFields):
    stream: bool = Field(True, description="One JSON object a line as text comes; false: one at the end.")
    format: Literal["", "json"] | JsonObject | None = Field(
        None, description="`json`, or a JSON schema that the answer is to match."
    )
    think: bool | Literal["low", "medium", "high", "max"] | None = Field(
        None, description="Whether, or how much, the model reasons. Unset: as it does by itself."
    )
    logprobs: bool = Field(False, description="Tell the log probabilities of the tokens.")
    top_logprobs: int | None = Field(
        None, ge=0, le=MAX_TOP_LOGPROBS, description="With logprobs: how many alternatives of each token."
    )
    truncate: bool | None = Field(
        None, description="Accepted and not used: what does not fit into the context is refused."
    )
    shift: bool | None = Field(None, description="Accepted and not used: an answer ends with the context.")


class OllamaChatRequest(OllamaGeneratingFields):
    """A conversation. Without messages the model is loaded, or unloaded if `keep_alive` is 0."""

    messages: Annotated[list[OllamaMessage], Field(fail_fast=True, max_length=MAX_MESSAGES)] = Field(
        [], description="The conversation so far."
    )
    tools: Annotated[list[JsonObject], Field(fail_fast=True, max_length=MAX_TOOLS)] | None = Field(
        None, description="Functions that the model may call, as in OpenAI's API."
    )


class OllamaGenerateRequest(OllamaGeneratingFields):
    """A prompt. Without one the model is loaded, or unloaded if `keep_alive` is 0."""

    prompt: str = Field("", description="What the model answers; it goes through its chat template.")
    suffix: str | None = Field(
        None, description="The answer is what stands between prompt and suffix, for models that can do so."
    )
    system: str | None = Field(None, description="A system message in front of the prompt.")
    images: Annotated[list[str], Field(fail_fast=True, max_length=MAX_PARTS)] | None = Field(
        None, description="Pictures, in base64."
    )
    raw: bool = Field(False, description="The prompt is not put into a chat template.")
    context: Any = Field(None, description="Accepted and not used: send the conversation to /api/chat.")
    template: str | None = Field(None, description="Refused: a model has its own.")

    @field_validator("template")
    @classmethod
    def _no_template(cls, value: str | None) -> str | None:
        if value:
            raise ValueError("templates of requests are not supported: set chat_template in models.yaml")
        return None


class OllamaEmbedRequest(OllamaFields):
    input: str | Annotated[list[str], Field(fail_fast=True, max_length=MAX_INPUTS)] = Field(
        description=f"A text, or up to {MAX_INPUTS}."
    )
    truncate: bool = Field(True, description="Cut what is too long; false: refuse it.")
    dimensions: int | None = Field(
        None, ge=1, le=MAX_TOKENS, description="Shorter vectors, of models that were made for it."
    )


class OllamaEmbeddingsRequest(OllamaFields):
    """The older form: one text."""

    prompt: str = Field("", description="The text.")


class OllamaTiming(BaseModel):
    """The end of an answer: why, and what it took. Only where `done` is true."""

    done_reason: Literal["stop", "length", "load", "unload"] | None = Field(
        None, description="`load` and `unload`: there was nothing to answer."
    )
    total_duration: int | None = Field(None, description=_NANOSECONDS)
    load_duration: int | None = Field(None, description=_NANOSECONDS)
    prompt_eval_count: int | None = Field(None, description="Tokens of the prompt.")
    prompt_eval_duration: int | None = Field(None, description=f"{_NANOSECONDS} Waiting counts too.")
    eval_count: int | None = Field(None, description="Tokens of the answer.")
    eval_duration: int | None = Field(None, description=_NANOSECONDS)


class OllamaTokenLogprob(BaseModel):
    token: str
    logprob: float
    bytes: list[int] | None = None


class OllamaLogprob(OllamaTokenLogprob):
    top_logprobs: list[OllamaTokenLogprob] = []


class OllamaAnswer(OllamaTiming):
    model: str = Field(description="As the request named it.")
    created_at: str = Field(description="RFC 3339.")
    done: bool = Field(description="Whether it is the last line.")
    logprobs: list[OllamaLogprob] | None = Field(None, description="Only if they were asked for.")


class OllamaAnswerFunction(BaseModel):
    index: int
    name: str
    arguments: dict[str, Any]


class OllamaAnswerCall(BaseModel):
    id: str
    function: OllamaAnswerFunction


class OllamaAnswerMessage(BaseModel):
    role: Literal["assistant"]
    content: str
    thinking: str | None = Field(None, description="Only if the model reasoned.")
    tool_calls: list[OllamaAnswerCall] | None = Field(None, description="Only if the model called tools.")


class OllamaChatAnswer(OllamaAnswer):
    """The answer when `stream` is false; otherwise a line for each piece."""

    message: OllamaAnswerMessage


class OllamaGenerateAnswer(OllamaAnswer):
    """The answer when `stream` is false; otherwise a line for each piece."""

    response: str
    thinking: str | None = Field(None, description="Only if the model reasoned.")


class OllamaEmbeddings(BaseModel):
    """One vector of length 1 for each input, in their order."""

    model: str
    embeddings: list[list[float]]
    total_duration: int = Field(description=_NANOSECONDS)
    load_duration: int = Field(description=_NANOSECONDS)
    prompt_eval_count: int = Field(description="Tokens of the inputs.")


class OllamaEmbedding(BaseModel):
    embedding: list[float]
