"""Text up to the first complete stop string; nothing of it leaks, nothing else is held back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.text.answers.stops import StopMatcher

# Few letters, so that stop strings overlap each other, themselves and the text.
LETTERS = "abé"
stop_sets = st.lists(st.text(LETTERS, min_size=1, max_size=5), max_size=4).map(tuple)
piece_lists = st.lists(st.text(LETTERS, max_size=5), max_size=12)


def run(stops: tuple[str, ...], pieces: list[str]) -> tuple[str, bool]:
    matcher = StopMatcher(stops)
    released = ""
    for piece in pieces:
        text, found = matcher.feed(piece)
        released += text
        if found:
            return released, True
    return released + matcher.flush(), False


def expected(stops: tuple[str, ...], text: str) -> tuple[str, bool]:
    """By the definition: look at every end, and take the longest stop string there."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if stop and text[:end].endswith(stop)]
        if ending:
            return text[: end - max(map(len, ending))], True
    return text, False


def longest_partial(stops: tuple[str, ...], text: str) -> int:
    lengths = (n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n]))
    return max(lengths, default=0)


@given(stop_sets, piece_lists)
def test_output_is_the_text_up_to_the_first_stop(stops: tuple[str, ...], pieces: list[str]) -> None:
    assert run(stops, pieces) == expected(stops, "".join(pieces))


@given(stop_sets, piece_lists)
def test_exactly_what_may_become_a_stop_is_held_back(stops: tuple[str, ...], pieces: list[str]) -> None:
    matcher = StopMatcher(stops)
    seen = released = ""
    for piece in pieces:
        text, found = matcher.feed(piece)
        seen += piece
        released += text
        if found:
            break
        assert released == seen[: len(seen) - longest_partial(stops, seen)]


@pytest.mark.parametrize(
    ("stops", "text", "output", "found"),
    [
        (("\n\n",), "one\n\ntwo", "one", "\n\n"),
        (("STOP", "\n"), "a\nSTOP", "a", "\n"),
        (("b", "abc"), "xabc", "xa", "b"),  # "b" is complete first
        (("c", "abc"), "xabc", "x", "abc"),  # both on the same character
        (("aab",), "aaab", "a", "aab"),  # the match starts inside a failed one
        (("ab",), "ab", "", "ab"),
        (("",), "text", "text", ""),
    ],
)
@pytest.mark.parametrize("keeps", [False, True])
def test_which_stop_wins(stops: tuple[str, ...], text: str, output: str, found: str, keeps: bool) -> None:
    for pieces in ([text], list(text)):
        matcher = StopMatcher(stops, keeps=keeps)
        released = "".join(matcher.feed(piece)[0] for piece in pieces) + matcher.flush()
        assert (released, matcher.found) == (output + found if keeps else output, found)


def test_a_partial_stop_is_released_once_it_fails() -> None:
    matcher = StopMatcher(("</end>",))
    assert matcher.feed("text</en") == ("text", False)
    assert matcher.feed("d") == ("", False)
    assert matcher.feed("!") == ("</end!", False)


def test_flush_releases_a_partial_stop_once() -> None:
    matcher = StopMatcher(("###",))
    matcher.feed("a##")
    assert matcher.flush() == "##"
    assert matcher.flush() == ""


def test_what_follows_a_stop_is_discarded() -> None:
    matcher = StopMatcher(("x",))
    assert matcher.feed("axb") == ("a", True)
    assert matcher.feed("more") == ("", True)
    assert matcher.flush() == ""


def test_a_repetitive_stop_costs_linear_time() -> None:
    """Comparing every suffix with the stop string would take 10^10 steps here."""
    stop = "a" * 100_000 + "b"
    matcher = StopMatcher((stop,))
    released = "".join(matcher.feed("a" * 1000)[0] for _ in range(200))
    assert released == "a" * 100_000
