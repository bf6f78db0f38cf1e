"""Text and log probabilities of one sequence, released together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engines.base import (
    Candidate,
    TokenLogprob,
)
from engines.text.answers.assembler import Released, TextAssembler


def entry(number: int, piece: bytes = b"") -> TokenLogprob:
    return TokenLogprob(Candidate(number, piece, -1.0))


def ids(released: Released) -> list[int]:
    return [logprob.chosen.token_id for logprob in released.logprobs]


def test_plain_text_needs_whole_characters_only() -> None:
    assembler = TextAssembler()
    assert assembler.push("aé".encode()[:2]) == Released("a")
    assert assembler.push("é".encode()[1:]) == Released("é")
    assembler.push(b"\xe2")
    assert assembler.finish() == Released("\ufffd")


def test_logprobs_that_were_not_wanted_are_dropped() -> None:
    assert TextAssembler().push(b"a", entry(1)) == Released("a")
    assert TextAssembler(("x",)).push(b"a", entry(1)) == Released("a")


def test_a_logprob_comes_with_its_text() -> None:
    assembler = TextAssembler((), want_logprobs=True)
    assert assembler.push(b"a", entry(1)) == Released("a", (entry(1),))


def test_a_stop_string_leaks_neither_as_text_nor_as_logprobs() -> None:
    assembler = TextAssembler(("</s>",), want_logprobs=True)
    assert ids(assembler.push(b"ok", entry(1))) == [1]
    held = assembler.push(b"!</", entry(2))
    assert (held.text, ids(held)) == ("!", [])
    assert assembler.push(b"s>more", entry(3)) == Released(stopped=True, stop="</s>")
    assert assembler.push(b"more", entry(4)) == Released(stopped=True, stop="</s>")
    assert assembler.finish() == Released(stopped=True, stop="</s>")


def test_tokens_before_a_stop_keep_their_logprobs() -> None:
    assembler = TextAssembler(("ab!",), want_logprobs=True)
    assert ids(assembler.push(b"a", entry(1))) == []
    assert ids(assembler.push(b"b", entry(2))) == []
    last = assembler.push(b"ab!", entry(3))
    assert (last.text, ids(last), last.stopped) == ("ab", [1, 2], True)


def test_held_logprobs_are_released_when_the_stop_fails() -> None:
    assembler = TextAssembler(("abc",), want_logprobs=True)
    assembler.push(b"a", entry(1))
    assembler.push(b"b", entry(2))
    failed = assembler.push(b"x", entry(3))
    assert (failed.text, ids(failed)) == ("abx", [1, 2, 3])


def test_finish_releases_what_was_held() -> None:
    assembler = TextAssembler(("abc",), want_logprobs=True)
    assembler.push(b"a", entry(1))
    assembler.push(b"b", entry(2))
    end = assembler.finish()
    assert (end.text, ids(end), end.stopped) == ("ab", [1, 2], False)
    assert assembler.finish() == Released()


def test_half_a_character_waits_for_the_other_half() -> None:
    first, second = "é".encode()[:1], "é".encode()[1:]
    assembler = TextAssembler((), want_logprobs=True)
    assert assembler.push(first, entry(1)) == Released()
    whole = assembler.push(second, entry(2))
    assert (whole.text, ids(whole)) == ("é", [1, 2])


def test_half_a_stop_string_of_one_character_does_not_leak() -> None:
    first, second = "é".encode()[:1], "é".encode()[1:]
    assembler = TextAssembler(("é",), want_logprobs=True)
    assert assembler.push(first, entry(1)) == Released()
    assert assembler.push(second, entry(2)) == Released(stopped=True, stop="é")


def test_a_token_without_text_is_released_at_once_unless_text_is_held() -> None:
    assembler = TextAssembler(("ab",), want_logprobs=True)
    assert ids(assembler.push(b"", entry(1))) == [1]
    assembler.push(b"a", entry(2))
    assert ids(assembler.push(b"", entry(3))) == []
    assert ids(assembler.push(b"x", entry(4))) == [2, 3, 4]


def test_a_stop_string_may_end_in_a_replacement_character() -> None:
    assembler = TextAssembler(("a\ufffd",))
    assembler.push(b"a\xe2")
    assert assembler.finish() == Released(stopped=True, stop="a\ufffd")


PIECES = st.lists(st.sampled_from([b"", b"a", b"b", b"ab", b"\xc3", b"\xa9", b"a\xc3"]), max_size=20)
STOPS = st.lists(st.text("abé", min_size=1, max_size=4), max_size=3).map(tuple)


@given(PIECES, STOPS)
def test_logprobs_never_run_ahead_of_the_text(pieces: list[bytes], stops: tuple[str, ...]) -> None:
    assembler = TextAssembler(stops, want_logprobs=True)
    text, numbers = "", []
    for number, piece in enumerate(pieces):
        released = assembler.push(piece, entry(number, piece))
        text += released.text
        numbers += ids(released)
        # What the released tokens say is contained in the released text.
        said = b"".join(pieces[: len(numbers)]).decode("utf-8", "replace")
        assert text.startswith(said) if len(said) <= len(text) else False
    end = assembler.finish()
    text, numbers = text + end.text, numbers + ids(end)
    whole = b"".join(pieces).decode("utf-8", "replace")
    assert whole.startswith(text)
    assert numbers == list(range(len(numbers)))
    if not end.stopped:
        assert text == whole
        assert len(numbers) == len(pieces)


@given(PIECES, STOPS, st.booleans(), st.data())
def test_an_answer_goes_on_wherever_it_was_cut(
    pieces: list[bytes], stops: tuple[str, ...], want_logprobs: bool, data: st.DataObject
) -> None:
    """An assembler that is fed what was generated before releases what the first would have."""
    cut = data.draw(st.integers(0, len(pieces)))
    whole, second = TextAssembler(stops, want_logprobs), TextAssembler(stops, want_logprobs)
    for number, piece in enumerate(pieces[:cut]):
        released = whole.push(piece, entry(number))
        assert second.push(piece)[::2] == released[::2]  # its log probabilities are not known
    for number, piece in enumerate(pieces[cut:], cut):
        expected, got = whole.push(piece, entry(number)), second.push(piece, entry(number))
        assert (got.text, got.stopped) == (expected.text, expected.stopped)
        assert ids(got) == [number for number in ids(expected) if number >= cut]
    assert second.finish()[::2] == whole.finish()[::2]
