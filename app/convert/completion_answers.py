"""Chunks to plain completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.convert.answers import Answer, TextEvents, now, printable, usage_info
from balancer.call import ResumePoint
from engines.base import TokenLogprob, Usage


class CompletionFormat:
    """OpenAI's ``text_completion``.

    ``echoes`` is the text to put in front of each choice, if any; of an answer that was ``begun``
    elsewhere, it was sent there.
    """

    def __init__(
        self,
        *,
        request_id: str,
        model: str,
        choices: int,
        include_usage: bool,
        echoes: list[str] | None,
        begun: ResumePoint | None = None,
    ) -> None:
        self.created = now() if begun is None else begun.created
        self._choices = choices
        self._echoes = echoes if begun is None else None
        self._head = {
            "id": f"cmpl-{request_id}",
            "object": "text_completion",
            "created": self.created,
            "model": model,
        }
        self._usage = {"usage": None} if include_usage else {}
        self._offsets: dict[int, int] = {}

    def opening(self, index: int) -> dict[str, Any] | None:
        return self.event(index, self._echoes[index]) if self._echoes else None

    def event(
        self,
        index: int,
        text: str = "",
        logprobs: Sequence[TokenLogprob] = (),
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        choice = {
            "index": index,
            "text": text,
            "logprobs": self._logprobs(index, logprobs),
            "finish_reason": finish_reason,
        }
        return {**self._head, "choices": [choice], **self._usage}

    def usage_event(self, usage: Usage) -> dict[str, Any]:
        return {**self._head, "choices": [], "usage": usage_info(usage)}

    def events(self) -> TextEvents:
        return TextEvents(self)

    def answers(self) -> list[Answer]:
        return [Answer() for _ in range(self._choices)]

    def document(self, answers: Sequence[Answer], usage: Usage) -> dict[str, Any]:
        choices = [
            {
                "index": index,
                "text": (self._echoes[index] if self._echoes else "") + answer.text,
                "logprobs": self._logprobs(index, answer.logprobs),
                "finish_reason": answer.finish_reason,
            }
            for index, answer in enumerate(answers)
        ]
        return {**self._head, "choices": choices, "usage": usage_info(usage)}

    def _logprobs(self, index: int, entries: Sequence[TokenLogprob]) -> Any:
        """Parallel lists; offsets count characters of the answer and go on from event to event."""
        if not entries:
            return None
        tokens = [printable(entry.chosen.text) for entry in entries]
        offsets = []
        for token in tokens:
            offsets.append(self._offsets.setdefault(index, 0))
            self._offsets[index] += len(token)
        return {
            "tokens": tokens,
            "token_logprobs": [entry.chosen.logprob for entry in entries],
            "top_logprobs": [{printable(c.text): c.logprob for c in e.top} for e in entries],
            "text_offset": offsets,
        }
