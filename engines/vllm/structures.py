"""Structures as vLLM takes them.

Its backend "guidance" is llguidance too, so there a structure means what it means on the other engines: it
gets the grammar that `engines.text.grammar` makes of it, which has also checked it. The other backends, for
tokenizers that llguidance cannot read, have their own ideas of JSON schemas, and know GBNF only.
"""

from __future__ import annotations

import json
from typing import Any

from engines.base import Structure
from engines.text.grammar.schemas import checked
from engines.text.grammar.sources import grammar_text, json_options

BACKEND = "guidance"
# In front of a text in Lark: by it llguidance knows that it is not GBNF.
_LARK = "%llguidance {}\n"


def structured_outputs(structure: Structure | None, *, uses_llguidance: bool) -> Any:
    """``StructuredOutputsParams``, or None. Raises `RequestError`."""
    if structure is None:
        return None
    from vllm.sampling_params import StructuredOutputsParams

    arguments = _for_llguidance(structure) if uses_llguidance else _for_others(structure)
    return StructuredOutputsParams(**arguments)


def _for_llguidance(structure: Structure) -> dict[str, Any]:
    match structure.kind:
        case "json_object":
            return {"json": _json({"type": "object"}, is_strict=True)}
        case "json_schema":
            return {"json": _json(checked(json.loads(structure.value)), is_strict=structure.strict)}
        case "regex":
            return {"regex": structure.value}
        case "choice" | "grammar":
            return {"grammar": _LARK + grammar_text(structure)}


def _json(schema: dict[str, Any], *, is_strict: bool) -> str:
    return json.dumps({**schema, "x-guidance": json_options(is_strict)})


def _for_others(structure: Structure) -> dict[str, Any]:
    match structure.kind:
        case "json_object":
            return {"json_object": True}
        case "json_schema":
            return {"json": structure.value}
        case "regex":
            return {"regex": structure.value}
        case "choice":
            return {"choice": list(structure.choices)}
        case "grammar":
            return {"grammar": structure.value}
