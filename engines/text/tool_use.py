"""Tool use: the functions that a model is shown, and the structure that forces a call of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engines.base import Structure
from engines.errors import RequestError

# Where a schema keeps what its "$ref"s lead to, counted from the root of the whole.
_DEFINITIONS = ("$defs", "definitions")


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The tools of one chat request. ``required``: every answer calls some of them; ``named``: this one.

    ``definitions`` are functions in OpenAI's form, ``{"type": "function", "function": {"name", …}}``.
    Without ``parallel`` an answer has one call at most.
    """

    definitions: tuple[Mapping[str, Any], ...]
    required: bool = False
    named: str | None = None
    parallel: bool = True

    @property
    def is_forced(self) -> bool:
        return self.required or self.named is not None

    def structure(self) -> Structure | None:
        """The structure of an answer that must be a call: what `engines.text.forced_calls` reads.

        That is the arguments of the named function, or an array of ``{"name", "parameters"}``. None if the
        model may answer otherwise. Raises `RequestError` if the functions' schemas define one name in two
        ways.
        """
        if self.named is not None:
            functions = (definition["function"] for definition in self.definitions)
            return json_schema(_parameters(next(each for each in functions if each["name"] == self.named)))
        return json_schema(self._calls()) if self.required else None

    def _calls(self) -> dict[str, Any]:
        functions = [definition["function"] for definition in self.definitions]
        parameters = {function["name"]: _parameters(function) for function in functions}
        definitions = _lift_definitions(parameters)
        calls = [_call(name, schema) for name, schema in parameters.items()]
        limit = {} if self.parallel else {"maxItems": 1}
        return {"type": "array", "minItems": 1, **limit, "items": {"anyOf": calls}, **definitions}


def json_schema(schema: Mapping[str, Any]) -> Structure:
    """The structure that a JSON schema describes."""
    return Structure("json_schema", json.dumps(schema))


def _parameters(function: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", **(function.get("parameters") or {"properties": {}})}


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
