"""Log writer: log lines on their way out, which nobody waits for.

A pipe that nobody reads takes no more at some point, and whoever writes into it stands still. So one thread
of its own writes, several lines at once; what it is too far behind with is dropped and counted.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
import weakref
from contextlib import suppress
from typing import TextIO

# Lines that wait, in characters.
MOST_WAITING = 4 * 2**20
# Lines wait so many seconds for others to go out with; warnings and what is worse do not.
GATHER_SECONDS = 0.02
# At the end of the process, lines get so many seconds to go out.
FLUSH_SECONDS = 2.0

_dropped_lines = 0
_writers: weakref.WeakSet[LogWriter] = weakref.WeakSet()


def dropped_lines() -> int:
    """How many log lines of this process were dropped."""
    return _dropped_lines


class LogWriter(logging.Handler):
    """A handler that queues lines for a thread, which writes them into ``stream``'s file, in order."""

    _is_awake: bool
    _is_closed: bool
    _begun: threading.Event
    _hurry: threading.Event

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream
        self._descriptor = stream.fileno()
        self._forget()
        _writers.add(self)

    def createLock(self) -> None:
        self.lock = None  # formatting needs none, and the queue has one of its own

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = f"{self.format(record)}\n"
        except Exception:
            self._drop(1)
            return
        with self._mutex:
            if self._size > MOST_WAITING:
                self._untold += 1
                self._drop(1)
            else:
                self._lines.append(line)
                self._size += len(line)
            is_first, self._is_awake = not self._is_awake, True
        if is_first:
            self._wake()
        if record.levelno >= logging.WARNING:
            self._hurry.set()

    def flush(self) -> None:
        """Wait until all is written, but not for long."""
        self._hurry.set()
        until = time.monotonic() + FLUSH_SECONDS
        while self._is_awake and time.monotonic() < until:
            time.sleep(0.001)

    def close(self) -> None:
        """End the thread, after a `flush`; what is logged later begins another one."""
        self.flush()
        self._is_closed = True
        self._hurry.set()
        self._begun.set()
        super().close()

    def _forget(self) -> None:
        """Begin as new: also in a process that was forked off, which has no thread but the forking one."""
        self._mutex = threading.Lock()
        self._lines: list[str] = []
        self._size = self._untold = 0
        self._is_awake = self._is_closed = False
        self._begun, self._hurry = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def _wake(self) -> None:
        self._begun.set()
        if self._thread is None or self._is_closed:
            self._is_closed = False
            self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
            # The interpreter may be ending already.
            with suppress(RuntimeError):
                self._thread.start()

    def _run(self) -> None:
        while not self._is_closed and self._thread is threading.current_thread():
            self._begun.wait()
            self._hurry.wait(GATHER_SECONDS)
            self._begun.clear()
            self._hurry.clear()
            while lines := self._take():
                self._write(lines)

    def _take(self) -> list[str]:
        with self._mutex:
            lines, self._lines = self._lines, []
            untold, self._untold, self._size = self._untold, 0, 0
            self._is_awake = bool(lines or untold)
        if untold:
            lines.append(f"{self.format(_note(untold))}\n")
        return lines

    def _write(self, lines: list[str]) -> None:
        data = memoryview("".join(lines).encode("utf-8", "backslashreplace"))
        try:
            while data and not self.stream.closed:  # else its number may be another file's by now
                data = data[self._write_some(data) :]
        except OSError:
            pass
        if data:  # nobody is there any more
            self._drop(len(lines))

    def _write_some(self, data: memoryview) -> int:
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:  # somebody who has the same terminal or pipe made it so
            select.select([], [self._descriptor], [], 1.0)
            return 0

    def _drop(self, count: int) -> None:
        global _dropped_lines
        _dropped_lines += count


def _note(count: int) -> logging.LogRecord:
    text = f"{count} lines of the log were dropped: they were not read fast enough"
    return logging.LogRecord("logs", logging.WARNING, __file__, 0, text, None, None)


def _after_fork() -> None:
    for writer in _writers:
        writer._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
