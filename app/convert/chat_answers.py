"""Chunks to chat completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.convert.answers import Answer, now, printable, usage_info
from engines.base import Candidate, FinishReason, TokenLogprob, Usage


class ChatFormat:
    """OpenAI's ``chat.completion`` and ``chat.completion.chunk``."""

    def __init__(self, *, request_id: str, model: str, choices: int, include_usage: bool) -> None:
        self.choices = choices
        self._head = {"id": f"chatcmpl-{request_id}", "created": now(), "model": model}
        # With include_usage every event has the field: null until the last.
        self._usage = {"usage": None} if include_usage else {}

    def opening(self, index: int) -> dict[str, Any]:
        return self._event(index, {"role": "assistant", "content": ""})

    def event(
        self,
        index: int,
        text: str = "",
        logprobs: Sequence[TokenLogprob] = (),
        finish_reason: FinishReason | None = None,
    ) -> dict[str, Any]:
        return self._event(index, {"content": text} if text or logprobs else {}, logprobs, finish_reason)

    def usage_event(self, usage: Usage) -> dict[str, Any]:
        return {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage_info(usage)}

    def document(self, answers: list[Answer], usage: Usage) -> dict[str, Any]:
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": answer.text, "refusal": None},
                "logprobs": _logprobs(answer.logprobs),
                "finish_reason": answer.finish_reason,
            }
            for index, answer in enumerate(answers)
        ]
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": usage_info(usage)}

    def _event(
        self,
        index: int,
        delta: dict[str, Any],
        logprobs: Sequence[TokenLogprob] = (),
        finish_reason: FinishReason | None = None,
    ) -> dict[str, Any]:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": _logprobs(logprobs),
            "finish_reason": finish_reason,
        }
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice], **self._usage}


def _logprobs(entries: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    if not entries:
        return None
    content = [
        {**_candidate(entry.chosen), "top_logprobs": [_candidate(c) for c in entry.top]} for entry in entries
    ]
    return {"content": content, "refusal": None}


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return {
        "token": printable(candidate.text),
        "logprob": candidate.logprob,
        "bytes": list(candidate.text),
    }
