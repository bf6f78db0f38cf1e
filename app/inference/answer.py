"""Answers of tasks that do not stream: one choice each, filled chunk by chunk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.inference.task import Task
from engines.base import Chunk, TokenLogprob


@dataclass(slots=True)
class CalledTool:
    """One tool call, as far as it came. ``arguments`` are JSON."""

    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(slots=True)
class Answer:
    """One choice. ``stop`` is the stop string that ended it."""

    text: str = ""
    reasoning: str = ""
    calls: dict[int, CalledTool] = field(default_factory=dict)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: str | None = None
    stop: str = ""

    def add(self, chunk: Chunk) -> None:
        self.text += chunk.text
        self.reasoning += chunk.reasoning
        self.token_ids += chunk.token_ids
        self.prompt_logprobs += chunk.prompt_logprobs
        self.logprobs.extend(chunk.logprobs)
        self.finish_reason = chunk.finish_reason or self.finish_reason
        self.stop = chunk.stop or self.stop
        for delta in chunk.tool_calls:
            call = self.calls.setdefault(delta.index, CalledTool())
            call.id = call.id or delta.id or ""
            call.name = call.name or delta.name or ""
            call.arguments += delta.arguments

    @property
    def mean_logprob(self) -> float:
        """Of its tokens; that of an answer without any is the lowest."""
        if not self.logprobs:
            return -math.inf
        return sum(each.chosen.logprob for each in self.logprobs) / len(self.logprobs)


def best(task: Task, candidates: Sequence[Answer]) -> Sequence[Answer]:
    """The answers to ``task`` among its ``candidates``: for each prompt those that the model finds likeliest,
    best first."""
    if not task.best_of:
        return candidates
    size = task.best_of
    prompts = (candidates[start : start + size] for start in range(0, len(candidates), size))
    chosen = [
        each
        for answers in prompts
        for each in sorted(answers, key=lambda answer: answer.mean_logprob, reverse=True)[: task.n]
    ]
    if task.logprobs is None:
        for answer in chosen:  # nobody asked for what they were chosen by
            answer.logprobs.clear()
    return chosen
