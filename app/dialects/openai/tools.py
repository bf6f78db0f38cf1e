"""Tools, and calls of them: their schema, and what a request wants of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from app.dialects.openai.structure import Identifier, JsonObject
from app.schemas.common import WireModel
from engines.base import ToolUse
from engines.errors import RequestError

MAX_TOOLS = 128
# Of the calls in all messages of a request together: they are JSON in JSON, and parsed to be checked.
MAX_ARGUMENTS = 2**19


def _is_object_schema(value: dict[str, Any]) -> dict[str, Any]:
    if value.get("type", "object") != "object":
        raise ValueError("a function's parameters are an object: give a JSON schema of type object")
    return value


ObjectSchema = Annotated[JsonObject, AfterValidator(_is_object_schema)]


def _unique(tools: list[Tool]) -> list[Tool]:
    names = [tool.function.name for tool in tools]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"two functions are called {twice}")
    return tools


class Function(WireModel):
    name: Identifier = Field(description="What the model calls it.")
    description: str | None = Field(None, description="What it does, for the model.")
    parameters: ObjectSchema | None = Field(
        None, description="JSON schema of an object. Unset: no parameters."
    )
    strict: bool | None = Field(
        None,
        description="true: calls match `parameters`, which may have nothing that cannot be enforced. Calls "
        "that `tool_choice` forces match them anyway, as far as they can be enforced.",
    )


class Tool(WireModel):
    type: Literal["function"]
    function: Function = Field(description="The function.")


class FunctionName(WireModel):
    name: str = Field(description="One of the tools.")


class NamedToolChoice(WireModel):
    type: Literal["function"]
    function: FunctionName = Field(description="The one that is called.")


class CalledFunction(WireModel):
    name: str = Field(description="The function's name.")
    arguments: str = Field(description="A JSON object, as text, or what a model wrote for one.")
    parsed_arguments: Any = Field(None, description="Accepted, as OpenAI's SDK sends it back, and not used.")


class ToolCall(WireModel):
    """A call that an earlier answer made."""

    id: str = Field(description="By which its result names it.")
    type: Literal["function"] = "function"
    function: CalledFunction = Field(description="What was called.")
    index: int | None = Field(None, description="Accepted, as streamed calls have it, and not used.")


ToolCalls = Annotated[list[ToolCall], Field(fail_fast=True, max_length=MAX_TOOLS)]
Tools = Annotated[list[Tool], Field(fail_fast=True, max_length=MAX_TOOLS), AfterValidator(_unique)]
ToolChoice = Literal["none", "auto", "required"] | NamedToolChoice


def tool_use(tools: list[Tool] | None, choice: ToolChoice | None, *, parallel: bool) -> ToolUse | None:
    """None if the model is not to call anything. Raises `RequestError` for a choice that cannot be met."""
    if not tools and choice not in (None, "none", "auto"):
        raise RequestError("tool_choice asks for a call, but there are no tools", param="tool_choice")
    if not tools or choice == "none":
        return None
    named = choice.function.name if isinstance(choice, NamedToolChoice) else None
    if named is not None and all(tool.function.name != named for tool in tools):
        raise RequestError(f"tool_choice names {named!r}, which is none of the tools", param="tool_choice")
    definitions = tuple(tool.model_dump(exclude_none=True) for tool in tools)
    return ToolUse(definitions, choice == "required", named, parallel)


def check_arguments(calls: Iterable[tuple[str, str]]) -> None:
    """Raise `RequestError` if the arguments of all ``calls``, each with their place in the request, are too
    long together.

    Whether they are JSON is not asked: models write what is none, and a conversation has to go on after that.
    """
    room = MAX_ARGUMENTS
    for arguments, where in calls:
        room -= len(arguments)
        if room < 0:
            raise RequestError(
                f"the arguments of all calls have more than {MAX_ARGUMENTS} characters", param=where
            )
