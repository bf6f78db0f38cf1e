"""Schema of chat completions: requests and answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from app.dialects.openai.chat.template import TemplateFields
from app.dialects.openai.peers import PeerFields
from app.dialects.openai.sampling import (
    MAX_TOKENS,
    MAX_TOP_LOGPROBS,
    MINUS_ONE_IS_NONE,
    PromptLogprobs,
    UsageInfo,
)
from app.dialects.openai.structure import ResponseFormat, StructuredOutputs
from app.dialects.openai.tools import ToolCalls, ToolChoice, Tools
from app.schemas.common import WireModel

MAX_MESSAGES = 2048
MAX_PARTS = 1024

ChatFinishReason = Literal["stop", "length", "tool_calls"]


class MediaUrl(WireModel):
    url: str = Field(description="A data URL, or an https URL (MEDIA_URLS says from where may be fetched).")
    detail: Literal["auto", "low", "high", "original"] | None = Field(
        None, description="Of an image: accepted and not used, as the model's own way of scaling counts."
    )


class InputAudio(WireModel):
    data: str = Field(description="WAV, MP3 or FLAC in base64.")
    format: str = Field("wav", description="What the sound is says its content.")


class ContentPart(WireModel):
    """A part of a message: text, an image or a sound. Video and files are refused by name."""

    type: Literal["text", "refusal", "image_url", "input_audio", "audio_url", "file", "video_url"] = Field(
        description="What it is: the field of that name has it."
    )
    text: str | None = Field(None, description="Of a text.")
    refusal: str | None = Field(None, description="Of a refusal that an answer had.")
    image_url: MediaUrl | str | None = Field(None, description="PNG, JPEG, WebP or GIF (its first frame).")
    input_audio: InputAudio | None = Field(None, description="WAV, MP3 or FLAC.")
    audio_url: MediaUrl | str | None = Field(None, description="A sound by its URL, as vLLM has it.")
    video_url: Any = Field(None, description="Refused.")
    file: Any = Field(None, description="Refused.")
    prompt_cache_breakpoint: Any = Field(None, description="Accepted and not used.")


class Message(WireModel):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"] = Field(
        description="Who says it; `developer` is `system`."
    )
    content: str | Annotated[list[ContentPart], Field(fail_fast=True, max_length=MAX_PARTS)] | None = Field(
        None, description="A text, or parts of several kinds."
    )
    name: str | None = Field(None, description="Who says it, for templates that know names.")
    refusal: str | None = Field(None, description="Of an assistant's message: a refusal that an answer had.")
    reasoning_content: str | None = Field(
        None, description="Of an assistant's message: its reasoning, for models that are shown it again."
    )
    reasoning: str | None = Field(None, description="Another name of reasoning_content.")
    tool_calls: ToolCalls | None = Field(None, description="Of an assistant's message.")
    tool_call_id: str | None = Field(None, description="Of a tool's message: the call that it answers.")
    function_call: Any = Field(None, description="Refused: the older form of `tool_calls`.")
    audio: Any = Field(None, description="Refused.")
    annotations: Any = Field(None, description="Accepted, as answers sent back have it, and not used.")
    parsed: Any = Field(None, description="Accepted, as OpenAI's SDK sends it back, and not used.")


class ChatCompletionRequest(PeerFields, TemplateFields):
    messages: Annotated[list[Message], Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES)] = Field(
        description=f"At most {MAX_MESSAGES}."
    )
    max_tokens: Annotated[int | None, MINUS_ONE_IS_NONE] = Field(
        None, ge=1, le=MAX_TOKENS, description="Older name of max_completion_tokens."
    )
    max_completion_tokens: Annotated[int | None, MINUS_ONE_IS_NONE] = Field(
        None,
        ge=1,
        le=MAX_TOKENS,
        description="Most tokens to generate. Unset or -1: up to the context's end.",
    )
    logprobs: bool = Field(False, description="Tell the log probabilities of the answer's tokens.")
    top_logprobs: int | None = Field(
        None, ge=0, le=MAX_TOP_LOGPROBS, description="With `logprobs`: how many alternatives of each token."
    )
    tools: Tools | None = Field(None, description="Functions that the model may call.")
    tool_choice: ToolChoice | None = Field(
        None,
        description="`none`: the model is not shown the tools; `auto` (the default with tools): it may call "
        "them; `required`: it must call at least one; a function: it must call this one.",
    )
    parallel_tool_calls: bool | None = Field(None, description="false: at most one call an answer.")
    response_format: ResponseFormat | None = Field(
        None, description="`json_object`: any JSON object; `json_schema`: one that matches the schema."
    )
    structured_outputs: StructuredOutputs | None = Field(
        None, description="What the answer must match, under the names that vLLM gives it."
    )

    # What becomes of these says the table in app/dialects/openai/unsupported.py.
    audio: Any = Field(None, description="Refused where it asks for something.")
    function_call: Any = Field(
        None, description="Older form of `tool_choice`: `none` and `auto` are accepted."
    )
    functions: Any = Field(None, description="Older form of `tools`: refused.")
    metadata: Any = Field(None, description="Accepted and not used.")
    modalities: Any = Field(None, description="`text` only.")
    moderation: Any = Field(None, description="Refused where it asks for something.")
    prediction: Any = Field(None, description="Accepted and not used.")
    prompt_cache_key: Any = Field(None, description="Accepted and not used.")
    prompt_cache_options: Any = Field(None, description="Accepted and not used.")
    prompt_cache_retention: Any = Field(None, description="Accepted and not used.")
    safety_identifier: Any = Field(None, description="Accepted and not used.")
    service_tier: Any = Field(None, description="Accepted and not used.")
    store: Any = Field(None, description="Accepted and not used: chats are not kept.")
    verbosity: Any = Field(None, description="`medium` only.")
    web_search_options: Any = Field(None, description="Refused where it asks for something.")

    @model_validator(mode="after")
    def _top_logprobs_need_logprobs(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs is only allowed when logprobs is true")
        return self

    @property
    def limit(self) -> int | None:
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens


class TopLogprob(BaseModel):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprobInfo(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(BaseModel):
    """They come with content: a piece of an answer that is all reasoning or calls of tools has none."""

    content: list[TokenLogprobInfo] | None
    refusal: None = None


class AnswerFunction(BaseModel):
    name: str
    arguments: str


class AnswerToolCall(BaseModel):
    id: str
    type: Literal["function"]
    function: AnswerFunction


class AnswerMessage(BaseModel):
    role: Literal["assistant"]
    content: str | None = Field(description="null if the answer only calls tools.")
    refusal: None = None
    reasoning_content: str | None = Field(None, description="Only if the model reasoned.")
    reasoning: str | None = Field(None, description="The same, for clients that look for it here.")
    tool_calls: list[AnswerToolCall] | None = Field(None, description="Only if the model called tools.")


class Choice(BaseModel):
    index: int
    message: AnswerMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: ChatFinishReason


class ChatCompletion(BaseModel):
    """The answer when `stream` is false; with `stream` it comes as `chat.completion.chunk` events."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: UsageInfo
    prompt_logprobs: PromptLogprobs | None = Field(None, description="Only if they were asked for.")
