from __future__ import annotations

import time
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.text.tokens.special_tokens import (
    LONGEST_RUN,
    SpecialToken,
    SpecialTokens,
    added_tokens,
    unbroken_runs,
)

MARK = "\U000f1234"
CONTROLS = ("<|im_start|>", "<|im_end|>", "<s>", "<<s>", "[INST]", "aa", "aaa", "^.*$")
TOKENS = SpecialTokens(
    [*(SpecialToken(text, is_control=True) for text in CONTROLS), SpecialToken("<think>", is_control=False)],
    longest=4,
)
TEXTS = st.lists(st.sampled_from([*CONTROLS, "<think>", "<|im", "_end|>", "<", "a", " x"])).map("".join)


@given(TEXTS)
def test_no_piece_of_a_hidden_text_holds_a_control_token(text: str) -> None:
    hidden = TOKENS.hide(text, MARK)
    assert hidden.replace(MARK, "") == text
    for piece in hidden.split(MARK):
        assert not [control for control in CONTROLS if control in piece]


def test_what_is_no_control_token_stays_whole() -> None:
    text = "<think>1 < 2</think> <|im_|end|> [inst]"
    assert TOKENS.hide(text, MARK) == text
    assert TOKENS.count_controls(["x", text], 9) == 0


def test_every_text_of_a_value_is_hidden() -> None:
    value = {"a": ["<s>", {"<s>": ("x", "<s>")}], "b": 1, "c": None}
    hidden = f"<{MARK}s>"
    assert TOKENS.count_controls(["x", "y<s>", "<", "s>"], 9) == 1
    assert TOKENS.count_controls(["<s>"] * 99, 9) == 10
    assert TOKENS.hide(value, MARK) == {"a": [hidden, {hidden: ["x", hidden]}], "b": 1, "c": None}


def test_the_longest_is_found_in_order() -> None:
    assert list(TOKENS.places("x<<s>aaaa<think>")) == [(1, True), (5, True), (9, True)]
    assert TOKENS.longest == len("<|im_start|>")
    assert list(SpecialTokens(longest=1).places("anything")) == []


def test_hundreds_of_nested_tokens_are_found() -> None:
    spaces = SpecialTokens([SpecialToken(" " * n, is_control=False) for n in range(1, 600)], longest=1)
    assert [place for place, _ in spaces.places(" " * 700)] == [0, 599]


def test_a_token_that_takes_what_is_left_of_it_is_no_place_to_cut() -> None:
    tokens = SpecialTokens([SpecialToken("<mask>", is_control=True, takes_left=True)], longest=1)
    assert list(tokens.places("a <mask>")) == [(2, False)]


def test_tokens_of_hugging_face() -> None:
    plain = SimpleNamespace(content="<s>", special=True)
    word = SimpleNamespace(content="word", special=False, single_word=True, lstrip=False, normalized=True)
    end = SimpleNamespace(content="</s>", special=False)
    left = SimpleNamespace(content="<m>", special=True, single_word=False, lstrip=True, normalized=False)
    assert list(added_tokens({1: plain, 2: word, 3: left, 4: end}, {4, 99})) == [
        SpecialToken("<s>", is_control=True),
        SpecialToken("word", is_control=False, is_certain=False),
        SpecialToken("<m>", is_control=True, takes_left=True),
        SpecialToken("</s>", is_control=True),
    ]


@pytest.mark.parametrize("unit", ["a", " ", ".", "/\n", "日", "_.+", "é̂", "a+", "1"])
def test_long_runs_are_cut(unit: str) -> None:
    text = "start " + unit * (5 * LONGEST_RUN // len(unit))
    cuts = [0, *unbroken_runs(text), len(text)]
    assert len(cuts) >= 6
    assert max(b - a for a, b in pairwise(cuts)) <= LONGEST_RUN + 7
    assert min(b - a for a, b in pairwise(cuts)) > 0


def test_prose_is_not_cut() -> None:
    prose = "The quick brown fox. " * 999 + "犬が吠える。猫、" * 999
    assert unbroken_runs(prose) == []


def test_a_run_goes_on_where_another_ends() -> None:
    """Of plus signs, which are among other signs, and then of full stops."""
    text = "+" * 2 * LONGEST_RUN + "." * 2 * LONGEST_RUN
    assert unbroken_runs(text) == [LONGEST_RUN, 2 * LONGEST_RUN, 3 * LONGEST_RUN]


@settings(max_examples=20)
@given(st.integers(2**16 - 3 * LONGEST_RUN, 2**16 + LONGEST_RUN), st.integers(LONGEST_RUN, 4 * LONGEST_RUN))
def test_runs_are_found_wherever_they_begin(start: int, length: int) -> None:
    text = "a " * (start // 2) + "b" * length + " a" * 99
    cuts = [start // 2 * 2, *unbroken_runs(text), start // 2 * 2 + length]
    assert all(0 <= b - a <= LONGEST_RUN for a, b in pairwise(cuts))


@pytest.mark.parametrize("unit", ["a" * (LONGEST_RUN - 1) + " ", "_" * (LONGEST_RUN - 1) + "a.", "a ", "/."])
def test_looking_for_runs_takes_linear_time(unit: str) -> None:
    text = unit * (2**21 // len(unit))
    start = time.process_time()
    unbroken_runs(text)
    assert time.process_time() - start < 1.0
