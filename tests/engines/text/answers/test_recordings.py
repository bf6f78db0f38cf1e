"""The score of canitoolcall: recorded outputs of nine families of models, read by us.

The recordings have token ids but no tokenizers: control tokens are known by their ids, other text is cut into
as many pieces as there are tokens, and in other ways: what is read must not depend on it.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache

import pytest
from canitoolcall.checks import case_status, run_checks
from canitoolcall.fixtures import Fixture, load_families, load_fixtures
from canitoolcall.results import CheckResult, Observation, ParseResult, Status, StreamAccumulator

from engines.text.answers.calls import WHOLE
from engines.text.answers.format import Format
from engines.text.answers.formats import BY_NAME
from engines.text.answers.reader import answer_reader

FAMILIES = load_families()
# The format of a family, or of a variant of it.
FORMATS = {
    "qwen3-hermes": "hermes",
    "qwen3-xml": "qwen3-xml",
    "gemma4": "gemma4",
    "gpt-oss": "harmony",
    "glm": "glm",
    "llama3-json": "llama3-json",
    "llama4-pythonic": "llama4-pythonic",
    "mistral": "mistral-v11",
    "v3": "mistral-v3",
    "kimi": "kimi-k2",
    "kimi-k3-xtml": "kimi-k3",
    "deepseek-v3": "deepseek-v3",
    "deepseek-v31": "deepseek-v3.1",
    "deepseek-v32": "deepseek-v3.2",
    "deepseek-v4": "deepseek-v4",
    "deepseek-v41": "deepseek-v4.1",
}
CONTROL_TOKENS = {
    "harmony": {
        200002: "<|return|>",
        200003: "<|constrain|>",
        200005: "<|channel|>",
        200006: "<|start|>",
        200007: "<|end|>",
        200008: "<|message|>",
        200012: "<|call|>",
    },
    "gemma4": {48: "<|tool_call>", 49: "<tool_call|>", 52: '<|"|>', 100: "<|channel>", 101: "<channel|>"},
    "mistral-v3": {5: "[TOOL_CALLS]"},
    "mistral-v11": {9: "[TOOL_CALLS]", 32: "[ARGS]", 33: "[CALL_ID]", 34: "[THINK]", 35: "[/THINK]"},
    "kimi-k3": {163587: "<|open|>", 163588: "<|close|>", 163589: "<|sep|>"},
    "llama3-json": {128006: "<|start_header_id|>", 128007: "<|end_header_id|>", 128010: "<|python_tag|>"},
    "llama4-pythonic": {200016: "<|python_start|>", 200017: "<|python_end|>"},
}
# Of the families' recordings, at least so many pass; the others are cut off inside a call, of which the
# arguments have been passed on.
FLOORS = {
    "qwen3-hermes": 45,
    "qwen3-xml": 53,
    "llama": 32,
    "mistral": 46,
    "gemma4": 45,
    "deepseek": 79,
    "gpt-oss": 50,
    "kimi": 48,
    "glm": 48,
}

Piece = tuple[str, str]  # text, or the name of a control token


def format_of(fixture: Fixture) -> Format:
    model = FAMILIES[fixture.family].reference_for(fixture.reference_model)
    assert model is not None
    return BY_NAME[FORMATS.get(model.variant or "", FORMATS.get(fixture.family, ""))]


def prompt_of(fixture: Fixture) -> str:
    if fixture.generation_prompt is not None:
        return fixture.generation_prompt
    model = FAMILIES[fixture.family].reference_for(fixture.reference_model)
    return (model and model.default_generation_prompt) or ""


def tokens_of(fixture: Fixture) -> list[tuple[Piece, int]]:
    """Texts between control tokens, with the number of tokens that they are; control tokens are one."""
    names = CONTROL_TOKENS.get(format_of(fixture).name, {})
    controls, counts = [], [0]
    for token in fixture.output_token_ids or ():
        if token in names:
            controls.append(names[token])
            counts.append(0)
        else:
            counts[-1] += 1
    text = fixture.raw_output

    @cache
    def places(number: int, at: int) -> tuple[float, tuple[int, ...]]:
        """Where the control tokens from ``number`` on stand behind ``at``: the likeliest of such texts."""
        if number == len(controls):
            return _oddity(len(text) - at, counts[number]), ()
        best: tuple[float, tuple[int, ...]] = (float("inf"), ())
        place = text.find(controls[number], at)
        while place >= 0:
            odd, rest = places(number + 1, place + len(controls[number]))
            best = min(best, (odd + _oddity(place - at, counts[number]), (place, *rest)))
            place = text.find(controls[number], place + 1)
        return best

    found: list[tuple[Piece, int]] = []
    at = 0
    for place, name, count in zip(places(0, 0)[1], controls, counts, strict=False):
        found += [((text[at:place], ""), count)] if place > at else []
        found.append((("", name), 1))
        at = place + len(name)
    return found + ([((text[at:], ""), counts[-1])] if at < len(text) else [])


def _oddity(characters: int, tokens: int) -> float:
    if (characters == 0) != (tokens == 0):
        return float("inf")
    return abs(characters - 3.5 * tokens)


def with_all_controls(tokens: list[tuple[Piece, int]], format: Format) -> list[tuple[Piece, int]]:
    """The same by a vocabulary in which all of the format's tokens are control tokens."""
    longest_first = sorted(format.tokens, key=len, reverse=True)
    marks = re.compile(f"({'|'.join(map(re.escape, longest_first))})")
    found: list[tuple[Piece, int]] = []
    for (text, special), _ in tokens:
        parts = marks.split(text) if not format.control and format.tokens else [text]
        found += [
            ((("", part) if number % 2 else (part, "")), 1) for number, part in enumerate(parts) if part
        ]
        found += [(("", special), 1)] if special else []
    return found


def cut(tokens: list[tuple[Piece, int]], way: str) -> Iterator[Piece]:
    """The pieces in which a text comes: whole, as tokens, by chance, or each character."""
    chance = random.Random(way)
    for (text, special), count in tokens:
        at = 0
        while at < len(text):
            size = {"whole": len(text), "tokens": max(1, -(-len(text) // max(1, count))), "characters": 1}
            end = at + size.get(way, chance.randint(1, 8))
            yield text[at:end], ""
            at = end
        if special:
            yield "", special


def read(
    fixture: Fixture, pieces: Iterable[Piece], hold: int = 0, format: Format | None = None
) -> ParseResult:
    reader = answer_reader(format or format_of(fixture), fixture.tools, prompt=prompt_of(fixture), hold=hold)
    seen = StreamAccumulator()
    deltas = [reader.feed(text, 0, special) for text, special in pieces]
    for delta in (*deltas, reader.finish()):
        seen.add_content(delta.content)
        seen.add_reasoning(delta.reasoning)
        for call in delta.tool_calls:
            seen.add_tool_call(call.index, call.name, call.arguments)
    return seen.result()


WAYS = ("tokens", "characters", "chance 1", "chance 2")


def judge(fixture: Fixture, hold: int = 0) -> list[CheckResult]:
    tokens = tokens_of(fixture)
    streams = {way: read(fixture, cut(tokens, way), hold) for way in WAYS}
    controls = with_all_controls(tokens, format_of(fixture))
    streams["all controls"] = read(fixture, cut(controls, "chance 3"), hold)
    observed = Observation(read(fixture, cut(tokens, "whole"), hold), streams)
    return list(run_checks(fixture, FAMILIES[fixture.family], observed))


def _told(results: dict[str, list[CheckResult]]) -> str:
    bad = {
        (id, row.check, row.detail)
        for id, rows in results.items()
        for row in rows
        if row.status is Status.FAIL
    }
    return "\n".join(f"{id} {check}: {detail}" for id, check, detail in sorted(bad, key=str))


@pytest.mark.parametrize("family", FLOORS)
def test_recorded_outputs_are_read(family: str) -> None:
    fixtures = load_fixtures(families=[family])
    found = {fixture.id: judge(fixture) for fixture in fixtures}
    failed = [fixture for fixture in fixtures if case_status(found[fixture.id]) is Status.FAIL]
    assert len(fixtures) - len(failed) >= FLOORS[family], _told(found)
    same = ("stream_equals_nonstream", "split_invariance", "no_leakage")
    different = [
        row for rows in found.values() for row in rows if row.check in same and row.status is not Status.PASS
    ]
    assert not different, _told(found)
    # What is cut off is not passed on at all if calls are kept back until they are whole.
    held = {fixture.id: judge(fixture, hold=WHOLE) for fixture in failed}
    fail = {id for id, rows in held.items() if case_status(rows) is Status.FAIL}
    # The first of these calls is whole.
    assert fail <= {"llama/l4-truncated-missing-close-bracket"}, _told(held)


def test_the_score() -> None:
    assert sum(FLOORS.values()) / sum(Counter(each.family for each in load_fixtures()).values()) >= 0.95


def test_what_is_written_wrongly_is_read_the_same_however_it_comes() -> None:
    chance = random.Random(5)
    fixtures = load_fixtures()
    for number in range(150):
        fixture = chance.choice(fixtures)
        format = format_of(fixture) if chance.random() < 0.8 else chance.choice(list(BY_NAME.values()))
        tokens = list(_damaged(tokens_of(fixture), chance))
        hold = chance.choice([0, 0, 30, WHOLE])
        ways = ("whole", "characters", f"chance {number}")
        seen = [read(fixture, cut(tokens, way), hold, format) for way in ways]
        assert seen[0] == seen[1] == seen[2], (fixture.id, format.name, tokens)


def _damaged(tokens: list[tuple[Piece, int]], chance: random.Random) -> Iterator[tuple[Piece, int]]:
    """Some tokens are left out or come twice, and some text is cut off, or other text is in it."""
    text = ""
    for (part, special), _ in tokens:
        at = chance.randint(0, len(part))
        junk = chance.choice(
            ["", "", "", "<", "}", '"', "\n", "\\", "</think>", "<think>", "<tool_call>", "[", "é"]
        )
        text += part[: at if chance.random() < 0.1 else None] if not junk else part[:at] + junk + part[at:]
        for _ in range(chance.choice([0, 1, 1, 1, 1, 1, 2]) if special else 0):
            yield (text, ""), len(text)
            yield ("", special), 1
            text = ""
    yield (text, ""), len(text)
