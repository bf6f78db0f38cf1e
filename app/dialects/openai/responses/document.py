"""Schema of responses, and of what there is to know of stored ones, for the API's documentation."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class ResponseInputDetails(BaseModel):
    cached_tokens: int = Field(description="Prompt tokens found in the prefix cache.")
    cache_write_tokens: int


class ResponseOutputDetails(BaseModel):
    reasoning_tokens: int


class ResponseUsageInfo(BaseModel):
    input_tokens: int
    input_tokens_details: ResponseInputDetails
    output_tokens: int
    output_tokens_details: ResponseOutputDetails
    total_tokens: int


class IncompleteDetails(BaseModel):
    reason: Literal["max_output_tokens"]


class ResponseError(BaseModel):
    code: str
    message: str


class ResponseDocument(BaseModel):
    """The response when `stream` is false; with `stream` it comes as events, as OpenAI's does."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    model: str
    output: list[dict[str, Any]] = Field(
        description="Items of the types `message`, `reasoning`, `function_call` and `custom_tool_call`."
    )
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    usage: ResponseUsageInfo | None
    background: bool
    frequency_penalty: float
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    presence_penalty: float
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: dict[str, Any]
    safety_identifier: str | None
    service_tier: str
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["disabled"]
    user: str | None


class DeletedResponse(BaseModel):
    id: str
    object: Literal["response"] = "response"
    deleted: bool = True


class ResponseItems(BaseModel):
    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ResponseInputTokens(BaseModel):
    object: Literal["response.input_tokens"]
    input_tokens: int
