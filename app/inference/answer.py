"""Answers of tasks that do not stream: one choice each, filled chunk by chunk."""

from __future__ import annotations

from dataclasses import dataclass, field

from engines.base import Chunk, TokenLogprob


@dataclass(slots=True)
class CalledTool:
    """One tool call, as far as it came. ``arguments`` are JSON."""

    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(slots=True)
class Answer:
    """One choice."""

    text: str = ""
    reasoning: str = ""
    calls: dict[int, CalledTool] = field(default_factory=dict)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: str | None = None

    def add(self, chunk: Chunk) -> None:
        self.text += chunk.text
        self.reasoning += chunk.reasoning
        self.token_ids += chunk.token_ids
        self.logprobs.extend(chunk.logprobs)
        self.finish_reason = chunk.finish_reason or self.finish_reason
        for delta in chunk.tool_calls:
            call = self.calls.setdefault(delta.index, CalledTool())
            call.id = call.id or delta.id or ""
            call.name = call.name or delta.name or ""
            call.arguments += delta.arguments
