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
    text: str = Field(description="The text.")
    citations: Any = Field(None, description="Accepted, as answers sent back have it, and not used.")


class Base64Source(WireModel):
    type: Literal["base64"]
    media_type: str = Field(description="What it is.")
    data: str = Field(description="Its bytes, in base64.")


class UrlSource(WireModel):
    type: Literal["url"]
    url: str = Field(description="Where it is.")


class ImageBlock(Block):
    type: Literal["image"]
    source: Annotated[Base64Source | UrlSource, Field(discriminator="type")] = Field(
        description="Where the image is."
    )
    transformations: Any = Field(None, description="Accepted and not used.")


class PlainTextSource(WireModel):
    type: Literal["text"]
    data: str = Field(description="The text.")
    media_type: Literal["text/plain"] = "text/plain"


TextOrImage = Annotated[TextBlock | ImageBlock, Field(discriminator="type")]
TextsAndImages = Annotated[list[TextOrImage], Field(fail_fast=True, max_length=MAX_BLOCKS)]


class ContentSource(WireModel):
    type: Literal["content"]
    content: str | TextsAndImages = Field(description="A text, or blocks of text.")


class Citations(WireModel):
    enabled: bool = Field(False, description="false only: answers cite nothing.")


class DocumentBlock(Block):
    """A document of text. Others, such as PDFs, are for clients to turn into text or images."""

    type: Literal["document"]
    source: Annotated[PlainTextSource | ContentSource, Field(discriminator="type")] = Field(
        description="The document: text, or what has text."
    )
    title: str | None = Field(None, description="What it is called.")
    context: str | None = Field(None, description="What it is about.")
    citations: Citations | None = Field(None, description="Refused if enabled.")


class SearchResultBlock(Block):
    type: Literal["search_result"]
    source: str = Field(description="Where it was found.")
    title: str = Field(description="What it is called.")
    content: Annotated[list[TextBlock], Field(fail_fast=True, max_length=MAX_BLOCKS)] = Field(
        description="Its text."
    )
    citations: Citations | None = Field(None, description="Refused if enabled.")


class ToolReference(Block):
    """Says in a tool's result that a deferred tool may be called from here on."""

    type: Literal["tool_reference"]
    tool_name: str = Field(description="A tool that was found.")


ResultBlock = Annotated[
    TextBlock | ImageBlock | DocumentBlock | SearchResultBlock | ToolReference, Field(discriminator="type")
]


class ToolResultBlock(Block):
    type: Literal["tool_result"]
    tool_use_id: str = Field(description="The call that it answers.")
    content: str | Annotated[list[ResultBlock], Field(fail_fast=True, max_length=MAX_BLOCKS)] | None = Field(
        None, description="What the call gave: a text, or blocks."
    )
    is_error: bool = Field(False, description="Whether the call failed.")
    toolset_name: Any = Field(None, description="Accepted and not used.")


class ThinkingBlock(Block):
    type: Literal["thinking"]
    thinking: str = Field(description="What the model thought.")
    signature: str = Field("", description="As the answer had it.")


class RedactedThinkingBlock(Block):
    type: Literal["redacted_thinking"]
    data: str = Field(description="Accepted and not used: only who wrote it can read it.")


class ToolUseBlock(Block):
    """A call that an earlier answer made."""

    type: Literal["tool_use"]
    id: str = Field(description="By which its result names it.")
    name: str = Field(description="The tool's name.")
    input: JsonObject = Field(description="What the tool was given.")
    caller: Any = Field(None, description="Accepted and not used.")
    toolset_name: Any = Field(None, description="Accepted and not used.")


class ToolName(WireModel):
    type: Literal["tool_reference"]
    name: str = Field(description="The tool's name.")


class ToolChange(Block):
    """Says in a system message that a deferred tool may be called from here on, or a tool no longer."""

    type: Literal["tool_addition", "tool_removal"] = Field(
        description="Whether the tool is added or taken away."
    )
    tool: ToolName = Field(description="The tool.")


UserBlock = Annotated[
    TextBlock | ImageBlock | DocumentBlock | SearchResultBlock | ToolResultBlock, Field(discriminator="type")
]
AssistantBlock = Annotated[
    TextBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock, Field(discriminator="type")
]
SystemBlock = Annotated[TextBlock | ToolChange, Field(discriminator="type")]


class UserMessage(WireModel):
    role: Literal["user"]
    content: str | Annotated[list[UserBlock], Field(fail_fast=True, max_length=MAX_BLOCKS)] = Field(
        description="A text, or blocks: texts, images, results of tools."
    )


class AssistantMessage(WireModel):
    role: Literal["assistant"]
    content: str | Annotated[list[AssistantBlock], Field(fail_fast=True, max_length=MAX_BLOCKS)] = Field(
        description="A text, or the blocks of an answer."
    )


class SystemMessage(WireModel):
    """Instructions in the midst of a conversation: they stay where they stand."""

    role: Literal["system"]
    content: str | Annotated[list[SystemBlock], Field(fail_fast=True, max_length=MAX_BLOCKS)] = Field(
        "", description="A text, or blocks of text."
    )
    clear_at: Literal["never"] | None = Field(None, description="Accepted and not used.")
    output_config: Any = Field(None, description="Accepted and not used.")


Message = Annotated[UserMessage | AssistantMessage | SystemMessage, Field(discriminator="role")]
