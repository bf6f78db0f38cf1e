"""Writer of llama-server's `/infill`, and what a proxy must know of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from app.dialects.openai.events import now
from app.inference.answer import Answer
from app.inference.dialect import AnswerContext
from app.inference.task import Task
from app.sse import sse
from balancer.call import WireFormat
from engines.base import Chunk, Usage

_TEXT = re.compile(rb'"content"\s*:\s*"(?!")')
_LAST = re.compile(rb'"stop"\s*:\s*true')
_COUNT = re.compile(rb'"(tokens_(?:predicted|evaluated|cached))"\s*:\s*(\d{1,9})\b')


class InfillWriter:
    """Events and documents of one task (`AnswerWriter`)."""

    def __init__(self, task: Task, context: AnswerContext) -> None:
        begun = context.resume_point
        self.created = now() if begun is None else begun.created
        self._model = task.target.name
        self._reason: str | None = None

    def opening(self, index: int) -> bytes:
        return b""

    def write(self, index: int, chunk: Chunk) -> bytes:
        self._reason = chunk.finish_reason
        return sse({"index": 0, "content": chunk.text, "stop": False}) if chunk.text else b""

    def closing(self, usage: Usage) -> bytes:
        return sse(self._whole("", self._reason, usage))

    def answers(self) -> Sequence[Answer]:
        return [Answer()]

    def document(self, answers: Sequence[Answer], usage: Usage) -> dict[str, Any]:
        return self._whole(answers[0].text, answers[0].finish_reason, usage)

    def _whole(self, text: str, reason: str | None, usage: Usage) -> dict[str, Any]:
        return {
            "index": 0,
            "content": text,
            "stop": True,
            "model": self._model,
            "tokens_predicted": usage.completion_tokens,
            "tokens_evaluated": usage.prompt_tokens,
            "tokens_cached": usage.cached_tokens,
            "truncated": False,
            "stop_type": "limit" if reason == "length" else "eos",
        }


def _is_end(tail: bytes) -> bool:
    """Whether the last event says that it is the last."""
    return _LAST.search(tail.rstrip().rpartition(b"\n\n")[2]) is not None


def _find_usage(tail: bytes) -> Usage | None:
    counts = {name: int(count) for name, count in _COUNT.findall(tail)}
    if b"tokens_predicted" not in counts:
        return None
    cached = counts.get(b"tokens_cached", 0)
    return Usage(counts.get(b"tokens_evaluated", 0), counts[b"tokens_predicted"], cached)


WIRE = WireFormat(is_end=_is_end, find_usage=_find_usage, count_tokens=lambda data: len(_TEXT.findall(data)))
