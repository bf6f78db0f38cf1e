"""The parent's end of the child's output: log records, progress, and the cause of a failed start."""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger("engines.vllm.child")

# "(Worker pid=4711) WARNING 11-22 12:02:03 [cpu_worker.py:114] what happened"
_LINE = re.compile(
    r"^\((?P<process>\S+) pid=\d+\) (?P<level>[A-Z]+) [\d-]+ [\d:]+ \[[^\]]*\] ?(?P<message>.*)$"
)
_CAUSE = re.compile(r"^(?P<kind>[A-Za-z_][\w.]*(?:Error|Exception)): (?P<text>.+)$")
# Errors that only say that there was another.
_WRAPPERS = ("initialization failed", "failed to start", "See root cause", "background process")
_PHASES = (
    ("Initializing a V1 LLM engine", 0.45),
    ("world_size=", 0.7),
    ("Starting to load model", 0.75),
    ("Loading weights took", 0.85),
    ("KV cache size", 0.9),
    ("init engine", 0.95),
)
_KEPT_LINES = 500


class ChildOutput:
    """A named pipe and the thread that reads it, until every writer has closed it and so has `close`.

    While loading and closing, what the child says is logged for debugging, and kept for `cause`; in
    between, warnings and errors are logged as such.
    """

    def __init__(self, progress: Callable[[float], None]) -> None:
        self._progress = progress
        self._folder = Path(tempfile.mkdtemp(prefix="enginehouse-vllm-"))
        self.pipe = self._folder / "output"
        os.mkfifo(self.pipe)
        # Opened for reading and writing: it neither waits for a writer nor ends between two of them.
        self._descriptor = os.open(self.pipe, os.O_RDWR)
        self._tail: deque[str] = deque(maxlen=_KEPT_LINES)
        self._serving = False
        self._thread = threading.Thread(target=self._read, name="vllm-output", daemon=True)
        self._thread.start()

    def loaded(self) -> None:
        """Note that the child is up: from now on its warnings are logged as warnings."""
        self._serving = True
        self._tail.clear()

    def closing(self) -> None:
        """Note that the child is being ended: its warnings, which will be many, are logged as details."""
        self._serving = False

    def cause(self) -> str | None:
        """The first error of substance, in one line."""
        for line in tuple(self._tail):
            if (found := _CAUSE.match(line)) and not any(part in line for part in _WRAPPERS):
                return f"{found['kind'].rpartition('.')[2]}: {found['text']}"
        return None

    def close(self) -> None:
        """End the thread once it has read what is there, and remove the pipe. Idempotent."""
        if self._thread.is_alive():
            os.write(self._descriptor, b"\n\0\n")
            self._thread.join()
            os.close(self._descriptor)
            shutil.rmtree(self._folder, ignore_errors=True)

    def _read(self) -> None:
        with os.fdopen(os.dup(self._descriptor), "rb") as stream:
            for raw in stream:
                if raw == b"\0\n":
                    return
                # A progress bar rewrites its line; the last state will do.
                self._take(raw.decode("utf-8", "replace").rstrip().rpartition("\r")[2])

    def _take(self, line: str) -> None:
        if not line:
            return
        found = _LINE.match(line)
        level, message = (found["level"], found["message"]) if found else ("DEBUG", line)
        if not self._serving:
            self._tail.append(message)
            self._note_progress(message)
        number = logging.getLevelNamesMapping().get(level, logging.INFO)
        if not self._serving or number < logging.WARNING:
            number = logging.DEBUG
        logger.log(number, "%s: %s", found["process"] if found else "child", message)

    def _note_progress(self, message: str) -> None:
        for phase, fraction in _PHASES:
            if phase in message:
                self._progress(fraction)
