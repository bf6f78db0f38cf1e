"""Answers drawn at random under a mask, without a model: they have the form, or are refused in good time."""

from __future__ import annotations

import contextlib
import json
import random
import time
from typing import Any

import jsonschema
import numpy as np
import psutil
import pytest

from engines.base import Structure
from engines.errors import RequestError
from engines.text.grammar import Compiler, TokenMask
from engines.text.grammar import mask as mask_module
from support.grammars import END, N_VOCAB, byte_vocabulary, text_of
from support.schemas import SchemaMaker

SCHEMAS = 400
LONGEST = 200
SECONDS = 1.0
MEGABYTES = 150


def walk(mask: TokenMask, draw: random.Random, most: int = LONGEST) -> str | None:
    """The answer, which ends as soon as it may and chance has it; None if it got too long."""
    drawn: list[int] = []
    while len(drawn) < most:
        choices = np.flatnonzero(mask.allowed(N_VOCAB)).tolist()
        if choices[-1] >= END and (choices[0] >= END or draw.random() < 0.5):
            return text_of(drawn)
        drawn.append(draw.choice([token for token in choices if token < END]))
        mask.consume(drawn[-1])
    return None


async def test_answers_to_made_up_schemas_are_valid() -> None:
    compiler, ended = Compiler(byte_vocabulary()), 0
    for seed in range(SCHEMAS):
        schema = SchemaMaker(seed).schema()
        grammar = await compiler.compile(Structure("json_schema", json.dumps(schema)))
        text = walk(grammar.mask(), random.Random(seed))
        if text is None:
            continue
        ended += 1
        jsonschema.Draft202012Validator(schema).validate(json.loads(text))
    assert ended > 0.9 * SCHEMAS


async def test_any_json_object_is_one_and_its_white_space_has_an_end() -> None:
    compiler = Compiler(byte_vocabulary())
    for structure in (Structure("json_object"), Structure("json_schema", "{}")):
        grammar = await compiler.compile(structure)
        texts = [walk(grammar.mask(), random.Random(seed)) for seed in range(60)]
        whole = [text for text in texts if text is not None]
        assert len(whole) > 20
        for text in whole:
            value = json.loads(text)
            assert structure.kind == "json_schema" or isinstance(value, dict)
        for gap in ("  ", "\n"):
            mask = grammar.mask()
            for byte in b'{"a":' + gap[:-1].encode():
                mask.consume(byte)
            assert not mask.allowed(N_VOCAB)[ord(gap[-1])]


def schema(**fields: Any) -> Structure:
    return Structure("json_schema", json.dumps(fields))


def lark(text: str) -> Structure:
    return Structure("grammar", text)


def nested(levels: int) -> Structure:
    return Structure("json_schema", '{"items":' * levels + "{}" + "}" * levels)


HOSTILE = {
    "nesting": nested(900),
    "long text": schema(type="string", maxLength=10**9),
    "many items": schema(type="array", items={"type": "integer"}, maxItems=10**9),
    "too many items": schema(type="array", items={"type": "integer"}, minItems=10**6),
    "many values": schema(enum=[f"x{i}" for i in range(10_000)]),
    "too many values": schema(enum=[f"x{i}" for i in range(200_000)]),
    "product": schema(allOf=[{"oneOf": [{"const": i}, {"const": -i}]} for i in range(12)]),
    "optional properties": schema(properties={f"p{i}": {} for i in range(900)}),
    "too many properties": schema(properties={f"p{i}": {} for i in range(3_000)}),
    "steps": schema(type="integer", multipleOf=999_983),
    "steps in Lark": lark('start: x\nx: %json {"type": "integer", "multipleOf": 999983}'),
    "patterns together": schema(
        properties={
            f"p{i}": {"allOf": [{"pattern": f"[a-z]*{c}[a-z]*"} for c in "abcdefghijklm"]} for i in range(50)
        }
    ),
    "circle": Structure(
        "json_schema",
        '{"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}',
    ),
    "elsewhere": schema(**{"$ref": "http://127.0.0.1:9/schema.json"}),
    "backtracking": Structure("regex", "(a+)+b"),
    "repetitions": Structure("regex", "((a{1,1000}){1,1000}){1,1000}"),
    "states": Structure("regex", "(.*a.{200}b.*c.{200}d)+"),
    "ambiguity": lark('start: s\ns: s s s | s s | "a" |'),
    "repeated rules": lark('start: ("a"{1,1000}){1,1000}'),
    "left recursion": lark('start: start "a" | start'),
    "many rules": lark(
        "root ::= r0\n" + "".join(f"r{i} ::= r{i + 1}\n" for i in range(900)) + 'r900 ::= "a"'
    ),
    "too many rules": lark("root ::= r\n" * 9_000),
    "brackets": lark("root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000),
    "long literal": lark(f'root ::= "{"a" * 50_000}"'),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_structure_is_refused_or_bounded(name: str) -> None:
    byte_vocabulary().lltokenizer()
    compiler, process = Compiler(byte_vocabulary()), psutil.Process()
    held, began = process.memory_info().rss, time.process_time()
    with contextlib.suppress(RequestError):
        grammar = await compiler.compile(HOSTILE[name])
        walk(grammar.mask(), random.Random(1), most=30)
    assert time.process_time() - began < SECONDS
    assert process.memory_info().rss - held < MEGABYTES * 2**20


@pytest.mark.parametrize(("name", "why"), [("repetitions", "cannot go on"), ("repeated rules", "too costly")])
async def test_an_answer_that_cannot_go_on_is_an_error_and_no_end(
    name: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mask_module, "DEBT", 0.02)
    mask = (await Compiler(byte_vocabulary()).compile(HOSTILE[name])).mask()

    with pytest.raises(RequestError, match=why):
        go_on(mask, ord("a"), most=1_000)


def go_on(mask: TokenMask, token: int, most: int) -> None:
    for _ in range(most):
        assert mask.allowed(N_VOCAB)[token]
        mask.consume(token)
