"""Forced calls are read the same however their text is cut."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engines.text.forced_calls import CallArray, CallReader, NamedCall

often = settings(derandomize=True, max_examples=200, deadline=None)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
plain = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.text('{}[]"\\,: ', max_size=8)
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=8
)
calls = st.lists(st.tuples(names, st.dictionaries(names, values, max_size=3)), min_size=1, max_size=4)


def read(reader: CallReader, text: str, cuts: list[int]) -> list[tuple[str, str]]:
    """The calls that ``reader`` makes of ``text``, given in pieces: names and arguments."""
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    found: list[list[str]] = []
    for start, end in pairwise(edges):
        for delta in reader.feed(text[start:end]) if end > start else ():
            if delta.name is not None:
                assert delta.index == len(found)
                found.append([delta.name, ""])
            found[delta.index][1] += delta.arguments
    return [(name, arguments) for name, arguments in found]


@often
@given(calls=calls, cuts=st.lists(st.integers(0, 500), max_size=30), indent=st.sampled_from([None, 0, 2]))
def test_an_array_of_calls(
    calls: list[tuple[str, dict[str, Any]]], cuts: list[int], indent: int | None
) -> None:
    text = json.dumps([{"name": n, "parameters": p} for n, p in calls], indent=indent)
    found = read(CallArray(), text, cuts)
    assert [(name, json.loads(arguments)) for name, arguments in found] == calls


@often
@given(calls=calls)
def test_character_by_character(calls: list[tuple[str, dict[str, Any]]]) -> None:
    text = json.dumps([{"name": n, "parameters": p} for n, p in calls], ensure_ascii=False)
    found = read(CallArray(), text, list(range(len(text))))
    assert [(name, json.loads(arguments)) for name, arguments in found] == calls


def test_arguments_come_as_soon_as_they_are_there() -> None:
    reader = CallArray()
    assert reader.feed('[{"name": "f", "param') == []
    first, second = reader.feed('eters": {"a": "x')
    assert (first.name, first.arguments) == ("f", "")
    assert second.arguments == '{"a": "x'
    assert [delta.arguments for delta in reader.feed('y"')] == ['y"']
    assert [delta.arguments for delta in reader.feed("}}]")] == ["}"]


def test_all_text_is_the_arguments_of_a_named_call() -> None:
    assert read(NamedCall("f"), '{"a": [1, 2]}', [3, 7]) == [("f", '{"a": [1, 2]}')]
