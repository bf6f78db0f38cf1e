from __future__ import annotations

import pytest

from app.inference.answer import Answer, best
from app.inference.task import Task
from balancer.call import Target
from engines.base import Candidate, TokenLogprob


def answer(text: str, *logprobs: float) -> Answer:
    return Answer(text=text, logprobs=[TokenLogprob(Candidate(1, b"x", value)) for value in logprobs])


@pytest.mark.parametrize("logprobs", [None, 0])
def test_the_best_answers_are_the_likeliest_by_token(logprobs: int | None) -> None:
    """Of each prompt; a long answer is not worse for being long, and one that says nothing is the last."""
    task = Task(target=Target("m"), prompts=("a", "b"), n=1, best_of=2, logprobs=logprobs)
    candidates = [
        answer("short", -2.0),
        answer("long", -1.0, -1.0, -1.0),
        answer("none"),
        answer("one", -9.0),
    ]
    chosen = best(task, candidates)
    assert [each.text for each in chosen] == ["long", "one"]
    assert [len(each.logprobs) for each in chosen] == ([3, 1] if logprobs == 0 else [0, 0])
