"""Structures that every engine must keep, and what their answers must be like."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from engines.base import Chunk, Engine, GenerationRequest, Prompt, Sampling, Structure

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
# `uniqueItems` is beyond grammars: only a schema that is not strict may have it.
LOOSE = {"type": "array", "items": {"enum": [1, 2]}, "maxItems": 2, "uniqueItems": True}


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def tokens_of(chunks: list[Chunk]) -> tuple[int, ...]:
    return tuple(token for chunk in chunks for token in chunk.token_ids)


class Case(NamedTuple):
    """A structure, and whether a text has it."""

    structure: Structure
    fits: Callable[[str], bool]


def schema(wanted: Any, *, strict: bool = True) -> Structure:
    return Structure("json_schema", json.dumps(wanted), strict=strict)


def _is_person(text: str) -> bool:
    person = json.loads(text)
    return [*person] == ["name", "age", "tags"] and 0 <= person["age"] <= 120 and len(person["name"]) <= 6


CASES = {
    "strict schema": Case(schema(PERSON), _is_person),
    "loose schema": Case(schema(LOOSE, strict=False), lambda text: set(json.loads(text)) <= {1, 2}),
    "regex": Case(
        Structure("regex", "[0-9]{3}-[a-c]{2}"), lambda t: bool(re.fullmatch("[0-9]{3}-[a-c]{2}", t))
    ),
    "choice": Case(Structure("choice", choices=("réd😀", 'b"lue')), lambda t: t in ("réd😀", 'b"lue')),
    "Lark": Case(Structure("grammar", 'start: "x" /[0-9]/ ("," /[0-9]/)?'), lambda t: t[0] == "x"),
    "GBNF": Case(Structure("grammar", 'root ::= "yes" | "no"'), lambda t: t in ("yes", "no")),
}

REFUSED = {
    "a keyword that no grammar has": (schema({"properties": {"q": {"not": {}}}}), "properties.q"),
    "no regular expression": (Structure("regex", "(["), "unclosed"),
    "no GBNF": (Structure("grammar", "root ::= ("), "GBNF"),
    "no choice": (Structure("choice"), "texts to choose from"),
    "no Lark": (Structure("grammar", "start: nothing"), "nothing"),
}


async def answer(engine: Engine, structure: Structure, **fields: Any) -> list[Chunk]:
    """The chunks of an answer of that form, as the edge asks for it."""
    await engine.prepare(structure)
    prompt = Prompt(await engine.tokenize("Say something: "))
    settings = {"sampling": Sampling(0.0), "max_tokens": 60, **fields}
    request = GenerationRequest("r", prompt, structure=structure, **settings)
    return [chunk async for chunk in engine.generate(request)]


async def check(engine: Engine, case: Case, **fields: Any) -> list[Chunk]:
    """Ask for an answer of that form, and look whether it is."""
    chunks = await answer(engine, case.structure, **fields)
    text = text_of(chunks)
    assert case.fits(text), text
    assert chunks[-1].finish_reason == "stop"
    return chunks
