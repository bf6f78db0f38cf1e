"""Structures as llguidance's grammars."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from engines.base import Structure
from engines.errors import RequestError
from engines.text.grammar.gbnf import is_gbnf, to_lark
from engines.text.grammar.schemas import checked

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

LONGEST_REASON = 200
_DECODER = json.JSONDecoder()


def grammar_text(structure: Structure) -> str:
    """The grammar of a ``structure`` other than a JSON schema. Raises `RequestError`."""
    from llguidance import LLMatcher

    match structure.kind:
        case "json_object" | "json_schema":
            return json_grammar({"type": "object"})
        case "regex":
            return LLMatcher.grammar_from_regex(structure.value)
        case "choice":
            if not structure.choices:
                raise refused("a choice needs texts to choose from")
            texts = (json.dumps(text, ensure_ascii=False) for text in structure.choices)
            return LLMatcher.grammar_from_lark("start: " + " | ".join(texts))
        case "grammar":
            text = structure.value
            if is_gbnf(text):
                return LLMatcher.grammar_from_lark(to_lark(text))
            check_schemas(text)
            return LLMatcher.grammar_from_lark(text)


def json_grammar(schema: Mapping[str, Any], *, is_strict: bool = True) -> str:
    """The grammar of a JSON schema, which was checked; see `json_options`."""
    from llguidance import LLMatcher

    try:
        return LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=json_options(is_strict))
    except ValueError as error:  # it nests too deep
        raise refused(f"the JSON schema cannot be read: {reason(str(error))}") from None


def json_in_lark(schema: Mapping[str, Any], *, is_strict: bool = True) -> str:
    """A JSON schema as a part of a Lark grammar, ``name: <this>``. Raises `RequestError`; see `checked`."""
    return "%json " + json.dumps({**checked(schema), "x-guidance": json_options(is_strict)})


def check_schemas(lark: str) -> None:
    """Raise `RequestError` for a schema in a Lark grammar that would come out wrong, or take too long."""
    for found in re.finditer(r"%json\b\s*", lark):
        try:
            schema, _ = _DECODER.raw_decode(lark, found.end())
        except (ValueError, RecursionError):
            raise refused("behind %json in a Lark grammar comes a JSON schema") from None
        checked(schema)


def json_options(is_strict: bool) -> JsonCompileOptions:
    """The way in which JSON is written, and schemas are read: of one that is not strict, what cannot be
    enforced is left aside."""
    return {
        # A space behind a comma and a colon, if the model wants one. Any other white space may go on for
        # ever, and models do. (llguidance before 1.8 ignores a bounded `whitespace_pattern`.)
        "whitespace_flexible": False,
        "item_separator": ", ?",
        "key_separator": ": ?",
        # Pydantic writes oneOf for what differs in a constant.
        "coerce_one_of": True,
        "lenient": not is_strict,
    }


def refused(why: str) -> RequestError:
    """The refusal of a structure."""
    return RequestError(why, param="response_format")


def reason(error: str) -> str:
    """An error of llguidance's in short: a whole one may quote the grammar."""
    _, mark, last = error.rpartition("error: ")  # what a regex says, below its drawing of the place
    text = " ".join((last if mark else error).replace("<non-verbose/>", "").split())
    return text[:LONGEST_REASON] or "it is too complex"
