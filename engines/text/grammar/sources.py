"""Structures as llguidance's grammars."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from engines.base import Structure
from engines.errors import RequestError
from engines.text.grammar import gbnf

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

# A space behind a comma and a colon, if the model wants one. Any other white space may go on for ever, and
# models do. (Releases before 1.8 ignore a bounded `whitespace_pattern`.)
_ITEM, _KEY = ", ?", ": ?"


def grammar_text(structure: Structure, schema: Any = None) -> str:
    """The grammar of ``structure``; ``schema`` is that of a "json_schema". Raises `RequestError`."""
    from llguidance import LLMatcher

    match structure.kind:
        case "json_object":
            return json_grammar({"type": "object"})
        case "json_schema":
            return json_grammar(schema, is_strict=structure.strict)
        case "regex":
            return LLMatcher.grammar_from_regex(structure.value)
        case "choice":
            texts = (json.dumps(text, ensure_ascii=False) for text in structure.choices)
            return LLMatcher.grammar_from_lark("start: " + " | ".join(texts))
        case "grammar":
            text = structure.value
            return LLMatcher.grammar_from_lark(gbnf.to_lark(text) if gbnf.is_gbnf(text) else text)


def json_grammar(schema: Any, *, is_strict: bool = True) -> str:
    """The grammar of a JSON schema; unless it ``is_strict``, what cannot be enforced is left aside."""
    from llguidance import LLMatcher

    options: JsonCompileOptions = {
        "whitespace_flexible": False,
        "item_separator": _ITEM,
        "key_separator": _KEY,
        "coerce_one_of": True,
        "lenient": not is_strict,
    }
    return LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=options)


def refused(why: str) -> RequestError:
    """The refusal of a structure."""
    return RequestError(why, param="response_format")
