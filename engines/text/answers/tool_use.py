"""Structures that force a call of a function."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from engines.base import Structure, ToolUse
from engines.errors import RequestError

# Where a schema keeps what its "$ref"s lead to, counted from the root of the whole.
_DEFINITIONS = ("$defs", "definitions")


def forced_structure(tools: ToolUse) -> Structure:
    """The structure of an answer that must be a call: what `engines.text.answers.forced_calls` reads.

    That is the arguments of the named function, or an array of ``{"name", "parameters"}``. Raises
    `RequestError` if the functions' schemas define one name in two ways.
    """
    functions = [definition["function"] for definition in tools.definitions]
    if tools.named is not None:
        return json_schema(_parameters(next(each for each in functions if each["name"] == tools.named)))
    parameters = {function["name"]: _parameters(function) for function in functions}
    definitions = _lift_definitions(parameters)
    calls = [_call(name, schema) for name, schema in parameters.items()]
    limit = {} if tools.parallel else {"maxItems": 1}
    return json_schema({"type": "array", "minItems": 1, **limit, "items": {"anyOf": calls}, **definitions})


def json_schema(schema: Mapping[str, Any], *, strict: bool = True) -> Structure:
    """The structure that a JSON schema describes."""
    return Structure("json_schema", json.dumps(schema), strict=strict)


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
