"""The text in a custom tool's arguments, however they are cut."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.dialects.openai.responses.custom_input import CustomInput


def read(*pieces: str) -> tuple[str, list[str]]:
    """The whole input, and what came with each piece."""
    reader = CustomInput()
    parts = [reader.feed(piece) for piece in pieces]
    return "".join(parts) + reader.finish(), parts


@settings(max_examples=60)
@given(st.text(), st.booleans(), st.booleans(), st.data())
def test_any_text_comes_out_whole(text: str, ascii: bool, spaced: bool, data: st.DataObject) -> None:
    separators = (" , ", " :\n ") if spaced else (",", ":")
    arguments = json.dumps({"input": text}, ensure_ascii=ascii, separators=separators)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(arguments)), max_size=6)))
    pieces = [arguments[a:b] for a, b in zip([0, *cuts], [*cuts, len(arguments)], strict=True)]
    assert read(*pieces)[0] == text


def test_text_comes_as_soon_as_it_is_certain() -> None:
    assert read('{"in', 'put": "a', "b\\", "nc\\ud83d", "\\ude00d", '"', "}")[1] == [
        *["", "a", "b", "\nc", "😀d", "", ""]
    ]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"patch": "x"}', "x"),
        ('{"input": 1, "x": "y"}', '{"input": 1, "x": "y"}'),
        ('{"x": "y", "input": "z"}', "z"),
        ("*** Begin", "*** Begin"),
        ('"quoted"', "quoted"),
        ("{}", ""),
        ("[1]", "[1]"),
        ("", ""),
        ('{"input": "no \\d escape \\', "no \\d escape \\"),
        ('{"input": "cut', "cut"),
        ('{"input": "half \\ud83d of"}', "half \\ud83d of"),
        ('{"input', '{"input'),
    ],
)
def test_what_models_write_instead(arguments: str, text: str) -> None:
    assert read(arguments)[0] == text
    assert read(*arguments)[0] == text
