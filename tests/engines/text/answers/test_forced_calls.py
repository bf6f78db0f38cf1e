"""Forced calls are read the same however their text is cut."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engines.base import AnswerDelta, ToolUse
from engines.text.answers.forced_calls import ForcedCalls

often = settings(derandomize=True, max_examples=200, deadline=None)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
functions = st.from_regex(r"[a-zA-Z0-9_-]{1,8}", fullmatch=True)
plain = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.text('{}[]"\\,: ', max_size=8)
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=8
)
calls = st.lists(st.tuples(functions, st.dictionaries(names, values, max_size=3)), min_size=1, max_size=4)


def tools(*names: str, named: str | None = None) -> ToolUse:
    definitions = tuple({"type": "function", "function": {"name": name}} for name in names)
    return ToolUse(definitions, required=named is None, named=named)


def read(use: ToolUse, text: str, cuts: list[int]) -> list[tuple[str, str]]:
    """The calls that are read in ``text``, given in pieces: names and arguments."""
    reader = ForcedCalls(use, None)
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    deltas = [reader.feed(text[start:end], 0) for start, end in pairwise(edges) if end > start]
    deltas.append(reader.finish())
    assert not any(delta.content or delta.reasoning for delta in deltas)
    found: list[list[str]] = []
    for call in (call for delta in deltas for call in delta.tool_calls):
        if call.name is not None:
            assert call.index == len(found)
            found.append([call.name, ""])
        found[call.index][1] += call.arguments
    return [(name, arguments) for name, arguments in found]


@often
@given(calls=calls, cuts=st.lists(st.integers(0, 500), max_size=30), indent=st.sampled_from([None, 0, 2]))
def test_an_array_of_calls(
    calls: list[tuple[str, dict[str, Any]]], cuts: list[int], indent: int | None
) -> None:
    text = json.dumps([{"name": n, "parameters": p} for n, p in calls], indent=indent)
    found = read(tools(*(name for name, _ in calls)), text, cuts)
    assert [(name, json.loads(arguments)) for name, arguments in found] == calls


@often
@given(calls=calls)
def test_character_by_character(calls: list[tuple[str, dict[str, Any]]]) -> None:
    text = json.dumps([{"name": n, "parameters": p} for n, p in calls], ensure_ascii=False)
    found = read(tools(*(name for name, _ in calls)), text, list(range(len(text))))
    assert [(name, json.loads(arguments)) for name, arguments in found] == calls


def test_arguments_come_as_soon_as_they_are_there() -> None:
    reader = ForcedCalls(tools("f"), None)
    assert reader.feed('[{"name": "f", "param', 0) == AnswerDelta()
    (first,) = reader.feed('eters": {"a": "x', 0).tool_calls
    assert (first.name, first.arguments) == ("f", '{"a": "x')
    assert [call.arguments for call in reader.feed('y"', 0).tool_calls] == ['y"']
    assert [call.arguments for call in reader.feed("}}]", 0).tool_calls] == ["}"]


def test_all_text_is_the_arguments_of_a_named_call() -> None:
    assert read(tools("f", named="f"), '{"a": [1, 2]}', [3, 7]) == [("f", '{"a": [1, 2]}')]
