from __future__ import annotations

import json
from typing import Any

import pytest

from engines.base import Structure
from engines.errors import RequestError
from engines.text.grammar import Compiler, json_in_lark
from engines.text.grammar.schemas import checked
from support.grammars import byte_vocabulary


def nested(schema: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"a": {"type": "array", "items": {"$ref": "#/$defs/b"}}, "c": {"type": "null"}},
        "$defs": {"b": {"anyOf": [{"type": "integer"}, schema]}},
    }


@pytest.mark.parametrize(
    ("part", "why"),
    [
        ({"type": "strin"}, "strin"),
        ({"not": {}}, "not"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "string", "pattern": "^(?=secret)$"}, "look-around"),
        ({"type": "string", "format": "nonsense"}, "nonsense"),
        ({"const": 9007199254740993}, "2^53"),
        ({"enum": [{"x": [-(2**60)]}]}, "2^53"),
        ({"minimum": 1e300}, "too large"),
    ],
)
async def test_a_refusal_names_the_place(part: dict[str, Any], why: str) -> None:
    with pytest.raises(RequestError) as error:
        await Compiler(byte_vocabulary()).compile(Structure("json_schema", json.dumps(nested(part))))

    assert "$defs.b.anyOf.1" in error.value.message
    assert why in error.value.message
    assert "secret" not in error.value.message


@pytest.mark.parametrize("keyword", [{"uniqueItems": True}, {"format": "nonsense"}, {"not": {}}, {"if": {}}])
async def test_a_schema_that_is_not_strict_may_have_what_cannot_be_enforced(keyword: dict[str, Any]) -> None:
    schema = json.dumps(nested({"type": ["array", "string"], **keyword}))

    await Compiler(byte_vocabulary()).compile(Structure("json_schema", schema, strict=False))
    with pytest.raises(RequestError):
        await Compiler(byte_vocabulary()).compile(Structure("json_schema", schema))


def test_bounds_become_such_as_can_be_computed_with() -> None:
    def bounds(**schema: Any) -> tuple[Any, ...]:
        ready = checked(nested(schema))["$defs"]["b"]["anyOf"][1]
        return ready.get("minimum"), ready.get("maximum")

    assert bounds(minimum=-(2**53), maximum=2**53) == (-(2**53), 2**53)
    assert bounds(minimum=2**53 + 1, maximum=2**53 + 3) == (2**53 + 2, 2**53 + 2)
    least, most = bounds(type="integer", minimum=-(2**63), maximum=2**63 - 1)
    assert -(2**63) <= least < -(2**62)
    assert 2**62 < most <= 2**63 - 1
    assert bounds(type="number", maximum=1e300) == (None, 10**18)


async def test_a_schema_in_a_grammar_is_checked_too() -> None:
    every_long = {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}
    grammar = f"start: a\na: {json_in_lark({'properties': {'x': every_long}})}"
    await Compiler(byte_vocabulary()).compile(Structure("grammar", grammar))
    with pytest.raises(RequestError, match="2\\^53"):
        json_in_lark({"const": 2**60})


def test_the_schema_that_was_sent_stays_as_it_is() -> None:
    schema = nested({"maximum": 2**60})
    before = json.dumps(schema)
    checked({**schema, "x-guidance": {"lenient": True}})
    assert json.dumps(schema) == before


async def test_options_of_the_grammars_engine_cannot_be_sent() -> None:
    assert "x-guidance" not in checked({"type": "null", "x-guidance": {"lenient": True}})


def test_notes_and_defaults_are_not_looked_at() -> None:
    schema = {"type": "string", "default": 2**60, "examples": [2**60], "x-note": {"const": 2**60}}
    assert checked(schema) == schema


@pytest.mark.parametrize("schema", [{"const": "a\U00040000"}, {"properties": {"\U00040000": {}}}])
def test_what_no_tokens_spell_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="no tokens"):
        checked({"items": schema}, lambda text: "\U00040000" not in text)
    checked({"items": schema}, lambda text: True)
