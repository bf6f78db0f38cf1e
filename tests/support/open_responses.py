"""The schemas of the Open Responses specification, strict, as far as answers here have them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Status = Literal["in_progress", "completed", "incomplete"]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class TopLogProb(_Strict):
    token: str
    logprob: float
    bytes: list[int]


class LogProb(TopLogProb):
    top_logprobs: list[TopLogProb]


class OutputTextContent(_Strict):
    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[LogProb]


class ReasoningTextContent(_Strict):
    type: Literal["reasoning_text"]
    text: str


Part = Annotated[OutputTextContent | ReasoningTextContent, Field(discriminator="type")]


class Message(_Strict):
    type: Literal["message"]
    id: str
    status: Status
    role: Literal["assistant"]
    content: list[Part]


class FunctionCall(_Strict):
    type: Literal["function_call"]
    id: str
    call_id: str
    name: str
    arguments: str
    status: Status


class Reasoning(_Strict):
    type: Literal["reasoning"]
    id: str
    content: list[Part]
    summary: list[Part]
    # It may be left out, but is never null.
    encrypted_content: str = ""


Item = Annotated[Message | FunctionCall | Reasoning, Field(discriminator="type")]


class FunctionTool(_Strict):
    type: Literal["function"]
    name: str
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool | None


class InputTokensDetails(_Strict):
    cached_tokens: int


class OutputTokensDetails(_Strict):
    reasoning_tokens: int


class Usage(_Strict):
    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens_details: OutputTokensDetails


class Reason(_Strict):
    reason: str


class Failure(_Strict):
    code: str
    message: str


class TextFormat(_Strict):
    type: Literal["text", "json_object", "json_schema"]


class TextField(_Strict):
    format: TextFormat
    verbosity: Literal["low", "medium", "high"] = "medium"


class ReasoningField(_Strict):
    effort: str | None
    summary: str | None


class ResponseResource(_Strict):
    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: str
    incomplete_details: Reason | None
    model: str
    previous_response_id: str | None
    instructions: str | None
    output: list[Item]
    error: Failure | None
    tools: list[FunctionTool]
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any]
    truncation: Literal["auto", "disabled"]
    parallel_tool_calls: bool
    text: TextField
    top_p: float
    presence_penalty: float
    frequency_penalty: float
    top_logprobs: int
    temperature: float
    reasoning: ReasoningField | None
    user: str | None
    usage: Usage | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    store: bool
    background: bool
    service_tier: str
    metadata: dict[str, str]
    safety_identifier: str | None
    prompt_cache_key: str | None


class _Event(_Strict):
    sequence_number: int


class LifecycleEvent(_Event):
    type: Literal[
        "response.created",
        "response.in_progress",
        "response.completed",
        "response.incomplete",
        "response.failed",
    ]
    response: ResponseResource


class ItemEvent(_Event):
    type: Literal["response.output_item.added", "response.output_item.done"]
    output_index: int
    item: Item


class _OfItem(_Event):
    item_id: str
    output_index: int


class PartEvent(_OfItem):
    type: Literal["response.content_part.added", "response.content_part.done"]
    content_index: int
    part: Part


class TextDelta(_OfItem):
    type: Literal["response.output_text.delta"]
    content_index: int
    delta: str
    logprobs: list[LogProb]


class TextDone(_OfItem):
    type: Literal["response.output_text.done"]
    content_index: int
    text: str
    logprobs: list[LogProb]


class ReasoningDelta(_OfItem):
    type: Literal["response.reasoning_text.delta"]
    content_index: int
    delta: str


class ReasoningDone(_OfItem):
    type: Literal["response.reasoning_text.done"]
    content_index: int
    text: str


class ArgumentsDelta(_OfItem):
    type: Literal["response.function_call_arguments.delta"]
    delta: str


class ArgumentsDone(_OfItem):
    type: Literal["response.function_call_arguments.done"]
    arguments: str


StreamingEvent: TypeAdapter[Any] = TypeAdapter(
    Annotated[
        LifecycleEvent
        | ItemEvent
        | PartEvent
        | TextDelta
        | TextDone
        | ReasoningDelta
        | ReasoningDone
        | ArgumentsDelta
        | ArgumentsDone,
        Field(discriminator="type"),
    ]
)
