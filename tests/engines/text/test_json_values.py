from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.text import json_values
from engines.text.json_values import encode, encode_in_pieces, size_of, texts_of

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(), max_size=9) | st.just("a\ud800😀"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=9,
)


@given(VALUES)
def test_pieces_are_the_same_json(value: Any) -> None:
    before, json_values.PIECE = json_values.PIECE, 2
    try:
        assert encode_in_pieces(value, lambda: None) == json.dumps(value)
    finally:
        json_values.PIECE = before


def test_any_mapping_is_an_object() -> None:
    value = {"a": MappingProxyType({"b": (1, 2)})}
    assert encode(value) == encode_in_pieces(value, lambda: None) == '{"a": {"b": [1, 2]}}'
    with pytest.raises(TypeError):
        encode_in_pieces([object()], lambda: None)


def test_a_caller_that_goes_ends_it() -> None:
    def gone() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        encode_in_pieces(["a"] * 9999, gone)


def test_the_texts_of_a_value() -> None:
    value = [{"role": "user", "content": ("hello", None)}, 1]
    texts = texts_of(value)
    assert sorted(filter(None, texts)) == ["content", "hello", "role", "user"]
    assert size_of(texts) == 4 + 4 + 7 + 5 + 9
    assert size_of(texts_of([1] * 1000, 10)) < 20
    assert size_of(texts_of([["aaaa"]] * 1000, 10)) < 30
