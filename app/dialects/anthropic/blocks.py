"""Content blocks of Anthropic's messages: what a request may hold, by role."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from app.dialects.openai.structure import JsonObject
from app.schemas.common import WireModel

MAX_BLOCKS = 2048


class Block(WireModel):
    """Base of all: where a client wants a cache to begin is accepted, as the prefix cache needs no marks."""

    cache_control: Any = Field(None, description="Accepted and not used: every prefix is cached.")


class TextBlock(Block):
    type: Literal["text"]
    text: str
    citations: Any = Field(None, description="Accepted, as answers sent back have it, and not used.")


class Base64Source(WireModel):
    type: Literal["base64"]
    media_type: str
    data: str


class UrlSource(WireModel):
    type: Literal["url"]
    url: str


class ImageBlock(Block):
    type: Literal["image"]
    source: Annotated[Base64Source | UrlSource, Field(discriminator="type")]
    transformations: Any = Field(None, description="Accepted and not used.")


class PlainTextSource(WireModel):
    type: Literal["text"]
    data: str
    media_type: Literal["text/plain"] = "text/plain"


TextOrImage = Annotated[TextBlock | ImageBlock, Field(discriminator="type")]
TextsAndImages = Annotated[list[TextOrImage], Field(fail_fast=True, max_length=MAX_BLOCKS)]


class ContentSource(WireModel):
    type: Literal["content"]
    content: str | TextsAndImages


class Citations(WireModel):
    enabled: bool = False


class DocumentBlock(Block):
    """A document of text. Others, such as PDFs, are for clients to turn into text or images."""

    type: Literal["document"]
    source: Annotated[PlainTextSource | ContentSource, Field(discriminator="type")]
    title: str | None = None
    context: str | None = None
    citations: Citations | None = None


class SearchResultBlock(Block):
    type: Literal["search_result"]
    source: str
    title: str
    content: Annotated[list[TextBlock], Field(fail_fast=True, max_length=MAX_BLOCKS)]
    citations: Citations | None = None


class ToolReference(Block):
    """Says in a tool's result that a deferred tool may be called from here on."""

    type: Literal["tool_reference"]
    tool_name: str


ResultBlock = Annotated[
    TextBlock | ImageBlock | DocumentBlock | SearchResultBlock | ToolReference, Field(discriminator="type")
]


class ToolResultBlock(Block):
    type: Literal["tool_result"]
    tool_use_id: str
    content: str | Annotated[list[ResultBlock], Field(fail_fast=True, max_length=MAX_BLOCKS)] | None = None
    is_error: bool = False
    toolset_name: Any = None


class ThinkingBlock(Block):
    type: Literal["thinking"]
    thinking: str
    signature: str = ""


class RedactedThinkingBlock(Block):
    type: Literal["redacted_thinking"]
    data: str = Field(description="Accepted and not used: only who wrote it can read it.")


class ToolUseBlock(Block):
    """A call that an earlier answer made."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: JsonObject
    caller: Any = None
    toolset_name: Any = None


class ToolName(WireModel):
    type: Literal["tool_reference"]
    name: str


class ToolChange(Block):
    """Says in a system message that a deferred tool may be called from here on, or a tool no longer."""

    type: Literal["tool_addition", "tool_removal"]
    tool: ToolName


UserBlock = Annotated[
    TextBlock | ImageBlock | DocumentBlock | SearchResultBlock | ToolResultBlock, Field(discriminator="type")
]
AssistantBlock = Annotated[
    TextBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock, Field(discriminator="type")
]
SystemBlock = Annotated[TextBlock | ToolChange, Field(discriminator="type")]


class UserMessage(WireModel):
    role: Literal["user"]
    content: str | Annotated[list[UserBlock], Field(fail_fast=True, max_length=MAX_BLOCKS)]


class AssistantMessage(WireModel):
    role: Literal["assistant"]
    content: str | Annotated[list[AssistantBlock], Field(fail_fast=True, max_length=MAX_BLOCKS)]


class SystemMessage(WireModel):
    """Instructions in the midst of a conversation: they stay where they stand."""

    role: Literal["system"]
    content: str | Annotated[list[SystemBlock], Field(fail_fast=True, max_length=MAX_BLOCKS)] = ""
    clear_at: Literal["never"] | None = None
    output_config: Any = Field(None, description="Accepted and not used.")


Message = Annotated[UserMessage | AssistantMessage | SystemMessage, Field(discriminator="role")]
