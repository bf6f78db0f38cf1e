"""Streamed answers as a client sees them: server-sent events cut out of bytes, timed and counted.

Light, because a load generator often shares a machine with the server that it measures: payloads are
looked at as bytes and parsed as JSON only where a number is needed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import pairwise

from app.answer_bytes import DONE, LineSplitter, error_message, event_data

_NO_TEXT = (b'"content":""', b'"content": ""', b'"content":null', b'"content": null')


def has_text(payload: bytes) -> bool:
    """Whether an event carries text. Quotes inside JSON strings are escaped, so bytes decide safely."""
    return b'"content":' in payload and not any(empty in payload for empty in _NO_TEXT)


@dataclass(slots=True)
class StreamedAnswer:
    """A streamed chat completion while it comes. Times are `time.perf_counter` seconds.

    ``arrivals`` has one time for each event with text; events that one read brought have the same time.
    """

    sent: float = 0.0
    ended: float = 0.0
    arrivals: list[float] = field(default_factory=list)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    is_done: bool = False
    error: str | None = None

    @property
    def first(self) -> float | None:
        """When the first text came."""
        return self.arrivals[0] if self.arrivals else None

    @property
    def is_over(self) -> bool:
        return self.is_done or self.error is not None

    @property
    def gaps(self) -> list[float]:
        """Seconds between events with text; a server that bundles tokens has fewer, longer ones."""
        return [after - before for before, after in pairwise(self.arrivals)]

    @property
    def pauses(self) -> list[float]:
        """Seconds between reads that brought text: what a reader of the text sees, without zeros."""
        return [gap for gap in self.gaps if gap > 0]


class StreamReader:
    """Reads the body of a streamed chat completion into its answer."""

    __slots__ = ("_answer", "_lines")

    def __init__(self, answer: StreamedAnswer) -> None:
        self._answer = answer
        self._lines = LineSplitter()

    def feed(self, data: bytes, now: float) -> None:
        """Take what one read brought at ``now``. Raises ValueError for an event that is no JSON."""
        answer = self._answer
        for line in self._lines.feed(data):
            payload = event_data(line)
            if not payload:
                continue
            if payload == DONE:
                answer.is_done = True
            elif has_text(payload):
                answer.arrivals.append(now)
            else:
                self._note(payload)

    def end(self, now: float) -> None:
        """The connection brought its last byte, or broke."""
        answer = self._answer
        answer.ended = now
        if not answer.is_over:
            answer.error = "the stream ended without [DONE]"

    def _note(self, payload: bytes) -> None:
        """Take usage or an error out of an event without text."""
        if b'"usage"' not in payload and b'"error"' not in payload:
            return
        event = json.loads(payload)
        if "error" in event:
            self._answer.error = error_message(payload)
        if usage := event.get("usage"):
            self._answer.prompt_tokens = usage["prompt_tokens"]
            self._answer.completion_tokens = usage["completion_tokens"]
