"""Durations of an answer, in nanoseconds, as Ollama tells them."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime


class Timing:
    """The clock of one answer, from its request on. ``loading`` tells how many seconds of it went by while
    the model was loaded; waiting counts as reading the prompt."""

    def __init__(self, loading: Callable[[], float], clock: Callable[[], int] = time.perf_counter_ns) -> None:
        self._loading = loading
        self._clock = clock
        self._start = clock()
        self._first: int | None = None

    def note_first(self) -> None:
        """The first of the answer came; later calls say nothing new."""
        if self._first is None:
            self._first = self._clock()

    def total_and_load(self) -> dict[str, int]:
        total = self._clock() - self._start
        return {"total_duration": total, "load_duration": self._load(total)}

    def parts(self) -> dict[str, int]:
        """How long the prompt and the answer took: at least 1, as clients divide by it."""
        end = self._clock()
        first = (end if self._first is None else self._first) - self._start
        load = self._load(first)
        return {
            "prompt_eval_duration": max(1, first - load),
            "eval_duration": max(1, end - self._start - first),
        }

    def _load(self, most: int) -> int:
        return min(most, int(self._loading() * 1e9))


def now() -> str:
    return rfc3339(time.time())


def rfc3339(seconds: float) -> str:
    """A time in Unix seconds, as Go writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
