"""Log relay: a child process's output, line by line, becomes a part of our log."""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

logger = logging.getLogger("balancer.workers.worker")

LONGEST_LINE = 16 * 2**10  # bytes
LINES_PER_SECOND = 500
_LAST_WORDS = 20  # lines
_LONGEST_WORDS = 2000  # characters

# A record refuses extra fields of these names.
_RESERVED = {*vars(logging.makeLogRecord({})), "message", "asctime"}


class Lines:
    """Cuts bytes into lines; of one that is longer than ``limit`` bytes the rest is dropped."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[: self._limit]
        return [line[: self._limit] for line in lines]

    def end(self) -> list[bytes]:
        """The last line, if it has no line end."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


class LogRelay:
    """Logs a child's lines: those of our JSON format with their own level and fields, others as they are.

    ``labels`` are added to each. Lines beyond `LINES_PER_SECOND` are dropped and counted, so that a child
    that floods its log cannot hold up the event loop.
    """

    def __init__(self, labels: Mapping[str, Any], clock: Callable[[], float] = time.monotonic) -> None:
        self.labels = labels
        self._clock = clock
        self._words: deque[str] = deque(maxlen=_LAST_WORDS)
        self._second = clock()
        self._taken = 0
        self._dropped = 0

    @property
    def last_words(self) -> str:
        """Errors and lines that are no log lines, which is where a crash explains itself."""
        return "\n".join(self._words)[-_LONGEST_WORDS:]

    def forget(self) -> None:
        """Drop the last words: lines up to now explain nothing that happens later."""
        self._words.clear()

    def take(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip()
        if not text or not self._has_room():
            return
        entry = _entry(text)
        if entry is None:
            self._words.append(text)
            logger.info(text, extra=dict(self.labels))
            return
        level = logging.getLevelNamesMapping().get(entry["level"], logging.INFO)
        if level >= logging.ERROR:
            self._words.append(entry["event"])
        fields = {f"{key}_" if key in _RESERVED else key: value for key, value in entry["data"].items()}
        logging.getLogger(entry["module"]).log(level, entry["event"], extra={**fields, **self.labels})

    def end(self) -> None:
        """No more lines will come."""
        self._tell_dropped()

    def _has_room(self) -> bool:
        now = self._clock()
        if now - self._second >= 1.0:
            self._second, self._taken = now, 0
            self._tell_dropped()
        self._taken += 1
        if self._taken > LINES_PER_SECOND:
            self._dropped += 1
            return False
        return True

    def _tell_dropped(self) -> None:
        dropped, self._dropped = self._dropped, 0
        if dropped:
            logger.warning("%d lines of the log were dropped: too many at once", dropped, extra=self.labels)


def _entry(text: str) -> dict[str, Any] | None:
    """The fields of ``text`` if it is a log line in our JSON format, else None."""
    if not text.startswith("{"):
        return None
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        return None
    wanted = {"level": str, "module": str, "event": str, "data": dict}
    if all(isinstance(entry.get(key), kind) for key, kind in wanted.items()):
        return dict(entry)
    return None
