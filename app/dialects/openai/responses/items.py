"""Schema of the items that a response is asked with: messages, calls and results, reasoning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from app.schemas.common import WireModel

MAX_ITEM_PARTS = 1024

# Items of tools that run at OpenAI, and what there is of them to read is nothing: a conversation that had
# some goes on without them.
HOSTED_ITEMS = frozenset(
    {
        "code_interpreter_call",
        "computer_call",
        "computer_call_output",
        "file_search_call",
        "image_generation_call",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_call",
        "mcp_list_tools",
        "tool_search_call",
        "tool_search_output",
        "web_search_call",
    }
)
_NOT_USED = "Accepted, as answers sent back have it, and not used."


class ItemPart(WireModel):
    """A part of a message, or of a tool's result."""

    type: Literal[
        "input_text",
        "output_text",
        "text",
        "refusal",
        "reasoning_text",
        "summary_text",
        "input_image",
        "input_audio",
        "input_file",
        "input_video",
    ] = Field(description="What it is: the field of that name has it.")
    text: str | None = Field(None, description="Of a text.")
    refusal: str | None = Field(None, description="Of a refusal that an answer had.")
    image_url: str | None = Field(None, description="Of an image: a data URL, or a URL.")
    detail: Any = Field(None, description="Accepted and not used.")
    input_audio: Any = Field(None, description="Of a sound: its `data` in base64, and its `format`.")
    file_id: Any = Field(None, description="Of a file: its id.")
    file_data: Any = Field(None, description="Of a file: what is in it.")
    file_url: Any = Field(None, description="Of a file: where it is.")
    filename: Any = Field(None, description="Of a file: its name.")
    video_url: Any = Field(None, description="Refused.")
    annotations: Any = Field(None, description=_NOT_USED)
    logprobs: Any = Field(None, description=_NOT_USED)
    prompt_cache_breakpoint: Any = Field(None, description="Accepted and not used.")


def _part_of_text(value: Any) -> Any:
    return {"type": "input_text", "text": value} if isinstance(value, str) else value


ItemParts = Annotated[
    list[Annotated[ItemPart, BeforeValidator(_part_of_text, json_schema_input_type=ItemPart)]],
    Field(fail_fast=True, max_length=MAX_ITEM_PARTS),
]
Contents = str | ItemParts


class _Item(WireModel):
    id: str | None = Field(None, description=_NOT_USED)
    status: Any = Field(None, description=_NOT_USED)
    created_by: Any = Field(None, description=_NOT_USED)
    caller: Any = Field(None, description=_NOT_USED)


class MessageItem(_Item):
    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"] = Field(
        description="Who says it; `developer` is `system`."
    )
    content: Contents = Field(description="A text, or parts of several kinds.")
    phase: Any = Field(None, description="Accepted and not used.")


class FunctionCallItem(_Item):
    """A call that an earlier answer made."""

    type: Literal["function_call"]
    call_id: str = Field(description="By which its result names it.")
    name: str = Field(description="The function's name.")
    namespace: str | None = Field(None, description="The namespace that the function belongs to.")
    arguments: str = Field(description="A JSON object, as text, or what a model wrote for one.")
    async_: Any = Field(None, alias="async", description="Accepted and not used.")
    parsed_arguments: Any = Field(None, description=_NOT_USED)


class CustomCallItem(_Item):
    """A call of a custom tool that an earlier answer made."""

    type: Literal["custom_tool_call"]
    call_id: str = Field(description="By which its result names it.")
    name: str = Field(description="The tool's name.")
    namespace: str | None = Field(None, description="The namespace that the tool belongs to.")
    input: str = Field(description="What the tool was given.")
    async_: Any = Field(None, alias="async", description="Accepted and not used.")


class CallResultItem(_Item):
    """The result of a call."""

    type: Literal["function_call_output", "custom_tool_call_output"] = Field(
        description="The kind of call that it answers."
    )
    call_id: str = Field(description="The call that it answers.")
    output: Contents = Field(description="What the call gave: a text, or parts.")
    name: Any = Field(None, description="Accepted and not used.")


class ReasoningItem(_Item):
    """The reasoning of an earlier answer. Models see it again if their chat templates show it."""

    type: Literal["reasoning"]
    summary: Any = Field(None, description="Accepted and not used, unless it is all there is.")
    content: ItemParts | None = Field(None, description="The reasoning, as an answer had it.")
    encrypted_content: str | None = Field(
        None, description="What answers here have in it is read; what is from elsewhere cannot be."
    )


class ReferenceItem(_Item):
    """An item of a stored response, by its id."""

    type: Literal["item_reference"] = "item_reference"
    id: str | None = Field(None, description="Of an item that an earlier response had.")


_KINDS = frozenset(
    {
        "message",
        "function_call",
        "custom_tool_call",
        "reasoning",
        "item_reference",
    }
)
_RESULTS = frozenset({"function_call_output", "custom_tool_call_output"})


def _kind(value: Any) -> str:
    """The tag of an item: a message may leave its type out, and a reference too."""
    if not isinstance(value, Mapping):
        return getattr(value, "type", "other")
    kind = value.get("type")
    if kind is None:
        return "message" if "role" in value or "id" not in value else "item_reference"
    if not isinstance(kind, str):
        return "other"
    return "result" if kind in _RESULTS else kind if kind in _KINDS else "other"


InputItem = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[FunctionCallItem, Tag("function_call")]
    | Annotated[CustomCallItem, Tag("custom_tool_call")]
    | Annotated[CallResultItem, Tag("result")]
    | Annotated[ReasoningItem, Tag("reasoning")]
    | Annotated[ReferenceItem, Tag("item_reference")]
    | Annotated[dict[str, Any], Tag("other")],
    Discriminator(_kind),
]
