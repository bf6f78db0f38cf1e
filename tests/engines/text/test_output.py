"""Text and log probabilities of one sequence, released together."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.base import (
    AnswerDelta,
    Candidate,
    GenerationRequest,
    Prompt,
    TokenLogprob,
    ToolCallDelta,
    ToolUse,
)
from engines.text.answer_plan import Plan
from engines.text.output import Output, Released, TextAssembler, finish_of, output_of


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
    assert assembler.push(b"s>more", entry(3)) == Released("", (), stopped=True)
    assert assembler.push(b"more", entry(4)) == Released("", (), stopped=True)
    assert assembler.finish() == Released("", (), stopped=True)


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
    assert assembler.push(second, entry(2)) == Released("", (), stopped=True)


def test_a_token_without_text_is_released_at_once_unless_text_is_held() -> None:
    assembler = TextAssembler(("ab",), want_logprobs=True)
    assert ids(assembler.push(b"", entry(1))) == [1]
    assembler.push(b"a", entry(2))
    assert ids(assembler.push(b"", entry(3))) == []
    assert ids(assembler.push(b"x", entry(4))) == [2, 3, 4]


def test_a_stop_string_may_end_in_a_replacement_character() -> None:
    assembler = TextAssembler(("a\ufffd",))
    assembler.push(b"a\xe2")
    assert assembler.finish() == Released("", (), stopped=True)


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


class Marks:
    """Reader of `<t>` reasoning `</t>` content, and of the control token 3, which calls a function."""

    in_reasoning = False

    def feed(self, text: str, token: int, special: str = "") -> AnswerDelta:
        if text in ("<t>", "</t>"):
            self.in_reasoning = text == "<t>"
            return AnswerDelta()
        if special == "<call>":
            return AnswerDelta(tool_calls=(ToolCallDelta(0, name="f"), ToolCallDelta(1, name="g")))
        return AnswerDelta(reasoning=text) if self.in_reasoning else AnswerDelta(text)

    def finish(self) -> AnswerDelta:
        return AnswerDelta()


class Vocabulary:
    def piece(self, token: int) -> bytes:
        return [b"<t>", b"</t>", b"stop", b"", b"yes"][token]

    def label(self, token: int) -> bytes:
        return self.piece(token) or b"<call>"


def read_output(**fields: Any) -> Output:
    plan = Plan(Marks, fields.pop("tools", None))
    return output_of(GenerationRequest("r", Prompt((1,)), answer=plan, **fields), Vocabulary())


def test_stop_strings_sleep_in_reasoning() -> None:
    output = read_output(stop=("stop",))
    parts = [output.push(token) for token in (0, 2, 1, 4)]
    assert [(part.reasoning, part.text) for part in parts] == [("", ""), ("stop", ""), ("", ""), ("", "yes")]
    assert output.push(2) == Released(stopped=True)
    assert output.push(3) == output.finish() == Released(stopped=True)
    assert output.reasoning_tokens == 2  # the mark that ends it is one


def test_log_probabilities_belong_to_content() -> None:
    output = read_output(logprobs=0)
    parts = [output.push(token, entry(token)) for token in (0, 2, 1, 4)]
    assert [ids(part) for part in parts] == [[], [], [], [4]]


@pytest.mark.parametrize(
    ("tools", "calls", "reason"),
    [
        (ToolUse(()), 2, "tool_calls"),
        (ToolUse((), parallel=False), 1, "tool_calls"),
        (ToolUse((), named="f"), 2, "stop"),
    ],
)
def test_calls_have_ids_and_end_the_answer(tools: ToolUse, calls: int, reason: str) -> None:
    output = read_output(tools=tools)
    told = output.push(3).tool_calls
    assert len({call.id for call in told if call.id}) == calls
    assert (finish_of("stop", output), finish_of("length", output)) == (reason, "length")


def test_special_tokens_are_shown_where_they_mean_nothing() -> None:
    class Deaf(Marks):
        def feed(self, text: str, token: int, special: str = "") -> AnswerDelta:
            return AnswerDelta(text)

    request = GenerationRequest("r", Prompt((1,)), answer=Plan(Deaf), show_special=True)
    assert output_of(request, Vocabulary()).push(3).text == "<call>"
