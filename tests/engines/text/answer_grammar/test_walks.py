"""Grammars of calls against the readers of their formats: random walks under the mask, without a model.

What a grammar allows is read back: names and arguments must be what the tools' schemas say.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jsonschema
import pytest
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from engines.base import AnswerDelta, Structure
from engines.text.answer_grammar.answer import Demand, write_grammar
from engines.text.answers.format import Format
from engines.text.answers.formats import BY_NAME, FORMATS
from engines.text.answers.reader import answer_reader
from engines.text.tokens.detokenizer import Utf8Stream

PLACE = {
    "type": "object",
    "properties": {"x": {"type": "boolean"}, "note": {"type": "string"}},
    "required": ["x"],
    "additionalProperties": False,
}
WEATHER = {
    "name": "get_weather",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "unit": {"type": "string", "enum": ["c", "f"]},
            "days": {"type": "integer", "minimum": 0, "maximum": 9},
            "who": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "place": {"$ref": "#/$defs/Place"},
            "list": {"type": "array", "items": {"type": "number"}, "maxItems": 3},
            "mode": {"enum": ["on", 3, None, True]},
        },
        "required": ["city", "days"],
        "additionalProperties": False,
        "$defs": {"Place": PLACE},
    },
}
# The same name for another definition.
MOVE = {
    "name": "a" * 64,
    "parameters": {
        "type": "object",
        "properties": {"to": {"$ref": "#/$defs/Place"}},
        "$defs": {"Place": {"type": "string", "enum": ["here", "there"]}},
    },
}
FUNCTIONS: list[dict[str, Any]] = [WEATHER, MOVE, {"name": "get_time"}]
SCHEMAS = {each["name"]: each.get("parameters", {"maxProperties": 0}) for each in FUNCTIONS}
CONTENT = Structure(
    "json_schema",
    json.dumps(
        {
            "type": "object",
            "properties": {"answer": {"type": "integer"}},
            "required": ["answer"],
            "additionalProperties": False,
        }
    ),
)
LONGEST = 600
# What ends strings, lists and marks, so that walks end too.
_CLOSING = frozenset(b'"}])>|<\n`')


class Bytes:
    """A vocabulary of bytes and of special tokens, as llguidance wants it."""

    bos_token_id = None

    def __init__(self, specials: tuple[str, ...]) -> None:
        self.specials = specials
        special = [b"\xff" + text.encode() for text in (*specials, "<end>")]
        self.tokens = [bytes([byte]) for byte in range(256)] + special
        self.eos_token_id = len(self.tokens) - 1
        self.special_token_ids = list(range(256, len(self.tokens)))

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)

    def token_of(self, text: str) -> int | None:
        return 256 + self.specials.index(text) if text in self.specials else None


@dataclass
class Walk:
    """The tokens of one walk; ``ended`` unless it was too long."""

    tokens: list[int]
    ended: bool


def walk(grammar: str, vocabulary: Bytes, tokenizer: LLTokenizer, seed: int) -> Walk:
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_lark(grammar))
    rng = random.Random(seed)
    tokens: list[int] = []
    while len(tokens) < LONGEST and not matcher.is_stopped():
        bits = matcher.compute_bitmask()
        assert not matcher.is_error(), matcher.get_error()
        allowed = [token for token in range(len(vocabulary.tokens)) if bits[token // 8] >> (token % 8) & 1]
        usual = [token for token in allowed if 32 <= token < 127 or token >= 256 or token in _CLOSING]
        closing = [token for token in usual if token in _CLOSING or token >= 256]
        token = rng.choice(closing if closing and rng.random() < 0.5 else usual or allowed)
        if token == vocabulary.eos_token_id:
            return Walk(tokens, True)
        assert matcher.consume_token(token), matcher.get_error()
        tokens.append(token)
    return Walk(tokens, matcher.is_stopped())


def read(format: Format, vocabulary: Bytes, tokens: list[int]) -> tuple[str, list[tuple[str, str]]]:
    """The content and the calls, each with its name and arguments."""
    controls = vocabulary.specials if format.control else ()
    tools = [{"type": "function", "function": each} for each in FUNCTIONS]
    reader = answer_reader(format, tools, controls=controls)
    text, utf8 = "", Utf8Stream()
    calls: dict[int, tuple[str, str]] = {}
    deltas: list[AnswerDelta] = []
    for token in tokens:
        if token < 256:
            deltas.append(reader.feed(utf8.feed(bytes([token])), token))
        else:
            name = vocabulary.specials[token - 256]
            deltas.append(reader.feed("" if controls else name, token, name if controls else ""))
    for delta in [*deltas, reader.finish()]:
        text += delta.content
        for call in delta.tool_calls:
            name, arguments = calls.get(call.index, ("", ""))
            calls[call.index] = (name or call.name or "", arguments + call.arguments)
    return text, [calls[index] for index in sorted(calls)]


@pytest.mark.parametrize("name", ["hermes", "harmony", "gemma4", "mistral-v11"])
def test_reasoning_within_a_grammar_is_read_back(name: str) -> None:
    format = BY_NAME[name]
    vocabulary = Bytes(format.tokens)
    tokenizer = LLTokenizer(TokenizerWrapper(vocabulary))
    reasoning = format.reasonings[0]
    demand = Demand([{"name": "get_time"}], True, 1, opening=reasoning.begin, closing=reasoning.end)
    grammar = write_grammar(format, demand, vocabulary.token_of)
    kinds = set()
    for seed in range(6):
        path = walk(grammar, vocabulary, tokenizer, seed)
        if path.ended:
            assert read(format, vocabulary, path.tokens) == ("", [("get_time", "{}")])
            text = b"".join(vocabulary.tokens[token].removeprefix(b"\xff") for token in path.tokens)
            kinds.add(reasoning.end.encode() in text)
    assert True in kinds


def cases() -> Iterator[tuple[Format, bool]]:
    for format in FORMATS:
        yield format, True
        if not format.control and format.tokens:
            yield format, False


@pytest.mark.parametrize(("format", "with_tokens"), [*cases()], ids=lambda each: getattr(each, "name", each))
def test_what_a_grammar_allows_is_read_back(format: Format, with_tokens: bool) -> None:
    vocabulary = Bytes(format.tokens if with_tokens else ())
    tokenizer = LLTokenizer(TokenizerWrapper(vocabulary))
    forced = write_grammar(format, Demand(FUNCTIONS, must_call=True), vocabulary.token_of)
    single = write_grammar(format, Demand(FUNCTIONS, True, 1), vocabulary.token_of)
    either = write_grammar(format, Demand(FUNCTIONS, content=CONTENT), vocabulary.token_of)
    guided = write_grammar(format, Demand(FUNCTIONS), vocabulary.token_of)
    for seed in range(4):
        for demand, grammar in (("many", forced), ("one", single), ("either", either), ("free", guided)):
            path = walk(grammar, vocabulary, tokenizer, seed)
            if not path.ended:
                continue
            text, calls = read(format, vocabulary, path.tokens)
            shown = b"".join(vocabulary.tokens[token] for token in path.tokens), text, calls
            for name, arguments in calls:
                jsonschema.validate(json.loads(arguments), SCHEMAS[name])
            if demand in ("many", "one"):
                assert calls, shown
                assert not text.strip(), shown
            if demand == "one":
                assert len(calls) == 1, shown
            if demand == "either" and not calls:
                assert set(json.loads(text)) == {"answer"}, shown
