"""Schema of Anthropic's messages: requests and answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from app.dialects.anthropic.blocks import MAX_BLOCKS, Message, TextBlock
from app.dialects.anthropic.tools import MessageToolChoice, Tools
from app.dialects.openai.sampling import MAX_STOPS, MAX_TOKENS, DrawingFields, ServedFields, Stop
from app.dialects.openai.structure import JsonObject
from app.schemas.common import WireModel

MAX_MESSAGES = 4096
Effort = Literal["low", "medium", "high", "xhigh", "max"]


class Thinking(WireModel):
    type: Literal["enabled", "disabled", "adaptive", "between_tools"] = Field(
        description="Whether the model thinks."
    )
    budget_tokens: int | None = Field(None, ge=0, description="Accepted and not used.")
    display: Literal["summarized", "omitted"] | None = Field(
        None, description="`omitted`: thinking is not told; its signature keeps it for the next request."
    )


class OutputFormat(WireModel):
    type: Literal["json_schema"]
    schema_: JsonObject = Field(alias="schema", description="The JSON schema that the answer matches.")


class OutputConfig(WireModel):
    effort: Effort | None = Field(
        None, description="How much to reason, for models whose chat template takes an effort."
    )
    format: OutputFormat | None = Field(None, description="A JSON schema that the answer's text matches.")
    task_budget: Any = Field(None, description="Accepted and not used.")


class CountTokensRequest(ServedFields):
    """What the prompt of a message is made of."""

    messages: Annotated[list[Message], Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES)] = Field(
        description=f"At most {MAX_MESSAGES}; an answer goes on with an assistant's that is last."
    )
    system: str | Annotated[list[TextBlock], Field(fail_fast=True, max_length=MAX_BLOCKS)] | None = Field(
        None, description="What stands in front of the conversation: a text, or blocks of text."
    )
    tools: Tools | None = Field(None, description="What the model may call.")
    tool_choice: MessageToolChoice | None = Field(None, description="Whether, and what, the model must call.")
    thinking: Thinking | None = Field(
        None,
        description="`enabled`, `adaptive`: models reason whose chat template can switch that; unset or "
        "`disabled`: they do not.",
    )
    output_config: OutputConfig | None = Field(
        None, description="What the answer is to look like, and how much the model thinks."
    )
    output_format: OutputFormat | None = Field(None, description="Another name of output_config.format.")

    # What becomes of these says the table in app/dialects/anthropic/unsupported.py.
    cache_control: Any = Field(None, description="Accepted and not used: the prefix cache needs no marks.")
    compaction: Any = Field(None, description="Refused where it asks for something.")
    container: Any = Field(None, description="Refused where it asks for something.")
    context_management: Any = Field(None, description="Accepted and not used.")
    diagnostics: Any = Field(None, description="Accepted and not used.")
    fallback_credit_token: Any = Field(None, description="Accepted and not used.")
    fallbacks: Any = Field(None, description="Accepted and not used.")
    inference_geo: Any = Field(None, description="Accepted and not used.")
    mcp_servers: Any = Field(None, description="Refused where it asks for something.")
    metadata: Any = Field(None, description="Accepted and not used.")
    service_tier: Any = Field(None, description="Accepted and not used.")
    speed: Any = Field(None, description="Accepted and not used.")
    thread: Any = Field(None, description="Refused where it asks for something.")
    user_profile_id: Any = Field(None, description="Accepted and not used.")
    workspace_id: Any = Field(None, description="Accepted and not used.")


class MessagesRequest(CountTokensRequest, DrawingFields):
    max_tokens: int = Field(ge=1, le=MAX_TOKENS, description="Most tokens to generate.")
    stream: bool = Field(False, description="Send the answer as server-sent events while it is generated.")
    stop_sequences: Annotated[list[Stop], Field(fail_fast=True, max_length=MAX_STOPS)] | None = Field(
        None, description=f"Up to {MAX_STOPS} strings that end the answer; `stop_sequence` tells which did."
    )
    stop: Annotated[list[Stop], Field(fail_fast=True, max_length=MAX_STOPS)] | None = Field(
        None, description="Another name of stop_sequences."
    )

    @property
    def stops(self) -> tuple[str, ...]:
        return tuple(self.stop_sequences if self.stop_sequences is not None else self.stop or ())


class AnswerText(BaseModel):
    type: Literal["text"]
    text: str


class AnswerThinking(BaseModel):
    type: Literal["thinking"]
    thinking: str
    signature: str = Field(description="To be sent back as it is.")


class AnswerToolUse(BaseModel):
    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class ThoughtTokens(BaseModel):
    thinking_tokens: int


class MessageUsage(BaseModel):
    input_tokens: int = Field(description="Tokens of the prompt that were not in the prefix cache.")
    cache_read_input_tokens: int = Field(description="Those that were.")
    cache_creation_input_tokens: int
    output_tokens: int
    output_tokens_details: ThoughtTokens


class MessageDocument(BaseModel):
    """The answer when `stream` is false; with `stream` it comes as events."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[Annotated[AnswerText | AnswerThinking | AnswerToolUse, Field(discriminator="type")]]
    stop_reason: Literal[
        "end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"
    ]
    stop_sequence: str | None
    usage: MessageUsage


class TokenCount(BaseModel):
    input_tokens: int = Field(
        description="What a message of the same request counts as `input_tokens` and "
        "`cache_read_input_tokens` together."
    )


class MessageErrorDetails(BaseModel):
    error_code: str = Field(description="What happened, more precisely than `type` says.")


class MessageError(BaseModel):
    type: str
    message: str
    param: str | None = None
    details: MessageErrorDetails


class MessageErrorEnvelope(BaseModel):
    """Every error's body."""

    type: Literal["error"]
    error: MessageError
    request_id: str | None
