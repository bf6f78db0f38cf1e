"""What a chat request wants of tools, and the structure that forces a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.convert.structure import json_schema
from app.schemas.chat import ChatCompletionRequest
from app.schemas.tools import NamedToolChoice, Tool
from engines.base import Structure
from engines.errors import RequestError

# Where a schema keeps what its "$ref"s lead to, counted from the root of the whole.
_DEFINITIONS = ("$defs", "definitions")


@dataclass(frozen=True, slots=True)
class ToolUse:
    """Tools the model is shown. ``required``: every answer calls some of them; ``named``: this one.

    Without ``parallel`` an answer has one call at most.
    """

    tools: tuple[Tool, ...]
    required: bool = False
    named: str | None = None
    parallel: bool = True

    @property
    def is_forced(self) -> bool:
        return self.required or self.named is not None

    def definitions(self) -> list[dict[str, Any]]:
        """The functions in OpenAI's form, for the chat template."""
        return [tool.model_dump(exclude_none=True) for tool in self.tools]

    def structure(self) -> Structure | None:
        """What every answer must match, if it must be a call: what `app.convert.forced_calls` reads.

        That is the arguments of the named function, or an array of ``{"name", "parameters"}``. Raises
        `RequestError` if the functions' schemas define one name in two ways.
        """
        if self.named is not None:
            tool = next(tool for tool in self.tools if tool.function.name == self.named)
            return json_schema(_parameters(tool))
        return json_schema(self._calls()) if self.required else None

    def _calls(self) -> dict[str, Any]:
        parameters = {tool.function.name: _parameters(tool) for tool in self.tools}
        definitions = _lift_definitions(parameters)
        calls = [_call(name, schema) for name, schema in parameters.items()]
        limit = {} if self.parallel else {"maxItems": 1}
        return {"type": "array", "minItems": 1, **limit, "items": {"anyOf": calls}, **definitions}


def tool_use(body: ChatCompletionRequest) -> ToolUse | None:
    """None if the model is not to call anything. Raises `RequestError` for a choice that cannot be met."""
    choice, tools = body.tool_choice, tuple(body.tools or ())
    if not tools and choice not in (None, "none", "auto"):
        raise RequestError("tool_choice asks for a call, but there are no tools", param="tool_choice")
    if not tools or choice == "none":
        return None
    named = choice.function.name if isinstance(choice, NamedToolChoice) else None
    if named is not None and all(tool.function.name != named for tool in tools):
        raise RequestError(f"tool_choice names {named!r}, which is none of the tools", param="tool_choice")
    return ToolUse(tools, choice == "required", named, body.parallel_tool_calls is not False)


def _parameters(tool: Tool) -> dict[str, Any]:
    return {"type": "object", **(tool.function.parameters or {"properties": {}})}


def _call(name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"name": {"const": name}, "parameters": parameters},
        "required": ["name", "parameters"],
        "additionalProperties": False,
    }


def _lift_definitions(schemas: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Take the definitions out of ``schemas`` and give them together: references count from the root."""
    lifted: dict[str, dict[str, Any]] = {}
    for function, schema in schemas.items():
        for place in _DEFINITIONS:
            definitions = schema.pop(place, {})
            if not isinstance(definitions, dict):
                raise RequestError(f"{place} in the parameters of {function} is no object", param="tools")
            for name, definition in definitions.items():
                known = lifted.setdefault(place, {}).setdefault(name, definition)
                if known != definition:
                    raise RequestError(
                        f"the parameters of {function} define {name!r} otherwise than another function's: "
                        "name it differently",
                        param="tools",
                    )
    return lifted
