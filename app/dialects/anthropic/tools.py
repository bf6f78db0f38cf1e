"""Tools of Anthropic's messages: their schema, and what a request wants of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from app.dialects.anthropic.blocks import Block
from app.dialects.openai.structure import JsonObject
from app.schemas.common import WireModel
from app.schemas.unknown_fields import UnknownField
from engines.base import ToolUse
from engines.errors import RequestError, UnsupportedFeature

# Clients with several MCP servers have some hundreds.
MAX_TOOLS = 1024

ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,128}$")]


def _is_object_schema(value: dict[str, Any]) -> dict[str, Any]:
    if value.get("type", "object") != "object":
        raise ValueError("a tool's input is an object: give a JSON schema of type object")
    return value


class MessageTool(Block):
    """A tool of the client's own, or by its `type` one of Anthropic's, which are not shown to the model."""

    type: str = Field("custom", description="`custom`; tools of other types are skipped.")
    name: ToolName = Field("", validate_default=False, description="What the model calls it.")
    description: str | None = Field(None, description="What it does, for the model.")
    input_schema: Annotated[JsonObject, AfterValidator(_is_object_schema)] | None = Field(
        None, description="JSON schema of an object. Unset: no parameters."
    )
    strict: bool = Field(
        False, description="true: calls match `input_schema`, which may have nothing that cannot be enforced."
    )
    defer_loading: bool = Field(False, description="true: not shown before a message refers to it.")
    input_examples: Any = Field(None, description="Accepted and not used.")
    allowed_callers: Any = Field(None, description="Accepted and not used.")
    eager_input_streaming: Any = Field(None, description="Accepted and not used: inputs always stream.")

    @property
    def is_custom(self) -> bool:
        return self.type == "custom"


class MessageToolChoice(WireModel):
    type: Literal["auto", "any", "tool", "none"] = Field(
        description="`auto`: the model may call tools; `any`: it must; `tool`: it must call the one of "
        "`name`; `none`: it is not shown any."
    )
    name: str | None = Field(None, description="Of `tool`: the one that is called.")
    disable_parallel_tool_use: bool = Field(False, description="true: at most one call an answer.")


Tools = Annotated[list[MessageTool], Field(fail_fast=True, max_length=MAX_TOOLS)]


def tool_use(
    tools: Tools | None, choice: MessageToolChoice | None, referenced: Mapping[str, bool]
) -> tuple[ToolUse | None, tuple[UnknownField, ...]]:
    """The tools that the model is shown, and those that are skipped.

    ``referenced`` says of tools that messages name whether they may be called: the deferred among them are
    shown. Raises `RequestError`, or `UnsupportedFeature`, for a choice that cannot be met.
    """
    skipped = tuple(
        UnknownField(f"tools.{i}", f"tools.{tool.type}")
        for i, tool in enumerate(tools or ())
        if not tool.is_custom
    )
    shown = [
        tool for tool in tools or () if tool.is_custom and referenced.get(tool.name, not tool.defer_loading)
    ]
    _check_names([tool for tool in tools or () if tool.is_custom])
    named = _named(choice, tools or (), {tool.name for tool in shown})
    if choice is not None and choice.type == "none":
        return None, skipped
    if not shown:
        if choice is not None and choice.type != "auto":
            raise RequestError("tool_choice asks for a call, but there are no tools", param="tool_choice")
        return None, skipped
    parallel = choice is None or not choice.disable_parallel_tool_use
    required = choice is not None and choice.type == "any"
    return ToolUse(tuple(map(_definition, shown)), required, named, parallel), skipped


def _check_names(tools: Collection[MessageTool]) -> None:
    names: set[str] = set()
    for tool in tools:
        if not tool.name:
            raise RequestError("a tool needs a name", param="tools")
        if tool.name in names:
            raise RequestError(f"two tools are called {tool.name}", param="tools")
        names.add(tool.name)


def _named(
    choice: MessageToolChoice | None, tools: Collection[MessageTool], shown: Collection[str]
) -> str | None:
    """The tool that must be called."""
    if choice is None or choice.type != "tool":
        return None
    if not choice.name:
        raise RequestError("tool_choice of type tool needs the name of the tool", param="tool_choice.name")
    if choice.name in shown:
        return choice.name
    skipped = next((tool for tool in tools if tool.name == choice.name and not tool.is_custom), None)
    if skipped is not None:
        raise UnsupportedFeature(
            f"tools of type {skipped.type} are not served: give {choice.name} an input_schema instead",
            param="tool_choice",
        )
    raise RequestError(f"tool_choice names {choice.name!r}, which is none of the tools", param="tool_choice")


def _definition(tool: MessageTool) -> dict[str, Any]:
    """A tool as templates and grammars take it."""
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.input_schema is not None:
        function["parameters"] = tool.input_schema
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}
