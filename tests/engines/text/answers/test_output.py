"""Answers told apart where tokens become text."""

from __future__ import annotations

from typing import Any

import pytest

from engines.base import (
    AnswerDelta,
    Candidate,
    GenerationRequest,
    Prompt,
    TokenLogprob,
    ToolCallDelta,
    ToolUse,
)
from engines.text.answers.assembler import Released
from engines.text.answers.output import Output, finish_of, output_of
from engines.text.answers.plan import Plan


def entry(number: int, piece: bytes = b"") -> TokenLogprob:
    return TokenLogprob(Candidate(number, piece, -1.0))


def ids(released: Released) -> list[int]:
    return [logprob.chosen.token_id for logprob in released.logprobs]


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
        return [b"<t>", b"</t>", b"stop", b"", b"yea"][token]

    def label(self, token: int) -> bytes:
        return self.piece(token) or b"<call>"


def read_output(**fields: Any) -> Output:
    plan = Plan(Marks, fields.pop("tools", None))
    return output_of(GenerationRequest("r", Prompt((1,)), answer=plan, **fields), Vocabulary())


def test_stop_strings_sleep_in_reasoning() -> None:
    output = read_output(stop=("stop",))
    parts = [output.push(token) for token in (0, 2, 1, 4)]
    assert [(part.reasoning, part.text) for part in parts] == [("", ""), ("stop", ""), ("", ""), ("", "yea")]
    assert output.push(2) == Released(stopped=True, stop="stop")
    assert output.push(3) == output.finish() == Released(stopped=True, stop="stop")
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


def test_the_ids_of_calls_follow_from_the_answers() -> None:
    """Whoever goes on with an answer tells of the same calls; another answer has others."""
    first, again, other = (read_output(answer_id=name).push(3).tool_calls for name in ("a", "a", "b"))
    assert [call.id for call in first] == [call.id for call in again]
    assert len({call.id for call in (*first, *other)}) == 4
