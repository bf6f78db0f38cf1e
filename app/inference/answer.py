"""Answers of tasks that do not stream: one choice each, filled chunk by chunk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.inference.task import Task
from engines.base import Chunk, TokenLogprob
from engines.text.answer_reader import AnswerReader


@dataclass(slots=True)
class CalledTool:
    """One tool call, as far as it came. ``arguments`` are JSON."""

    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(slots=True)
class Answer:
    """One choice. Its ``reader``, if it has one, tells reasoning and tool calls from content."""

    reader: AnswerReader | None = None
    text: str = ""
    reasoning: str = ""
    calls: dict[int, CalledTool] = field(default_factory=dict)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: str | None = None

    def add(self, chunk: Chunk) -> None:
        self.token_ids += chunk.token_ids
        self.prompt_logprobs += chunk.prompt_logprobs
        if self.reader is None:
            self._add(chunk.text, chunk.logprobs, chunk.finish_reason)
            return
        part = self.reader.read(chunk)
        self._add(part.text, part.logprobs, part.finish_reason)
        self.reasoning += part.reasoning
        for delta in part.tool_calls:
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

    def _add(self, text: str, logprobs: tuple[TokenLogprob, ...], finish_reason: str | None) -> None:
        self.text += text
        self.logprobs.extend(logprobs)
        self.finish_reason = finish_reason or self.finish_reason


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
