"""Run a command as a step: its output goes to a log, its progress to the terminal."""

from __future__ import annotations

import queue
import re
import shlex
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from scripts.setup.advice import advise
from scripts.setup.errors import StepFailed

TAIL_LINES = 25
PLAIN_INTERVAL = 15.0
NAME_WIDTH = 60

_NINJA = re.compile(r"^\s*\[(\d+)/(\d+)\] ")
_MAKE = re.compile(r"^\s*\[\s*(\d+)%\] ")
_FETCH = re.compile(r"^\s*(?:Downloading|Using cached|Processing) (\S+)(?: (\([\d.]+ [kMG]B\)))?")
_COLLECT = re.compile(r"^Collecting ([\w.-]+)")
_INSTALL = re.compile(r"^Installing collected packages: (.+)$")


def parse_activity(line: str) -> str | None:
    """What a line of ninja's, make's or pip's output says is being done, or None."""
    if match := _NINJA.match(line):
        done, total = int(match[1]), int(match[2])
        return f"compiling {100 * done // total} % ({done}/{total})" if 0 < total >= done else None
    if match := _MAKE.match(line):
        return f"compiling {int(match[1])} %"
    if match := _FETCH.match(line):
        name = match[1].rsplit("/", 1)[-1].removesuffix(".metadata")[:NAME_WIDTH]
        return f"fetching {name} {match[2] or ''}".rstrip()
    if match := _COLLECT.match(line):
        return f"looking for {match[1]}"
    if match := _INSTALL.match(line):
        return f"unpacking {match[1].count(',') + 1} packages"
    return None


class Reporter:
    """Shows one step's progress: a line that rewrites itself on a terminal, else a line now and then."""

    def __init__(
        self, title: str, stream: TextIO, *, tty: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._title = title
        self._stream = stream
        self._tty = tty
        self._clock = clock
        self._started = clock()
        self._shown = self._started
        self._activity: str | None = None

    def feed(self, line: str) -> None:
        """Take note of a line of output."""
        self._activity = parse_activity(line) or self._activity

    def tick(self) -> None:
        """Show where the step is, if it is time to."""
        now = self._clock()
        if self._tty:
            self._stream.write(f"\r\x1b[K{self._text(now)}")
            self._stream.flush()
        elif now - self._shown >= PLAIN_INTERVAL:
            self._shown = now
            self._print(self._text(now))

    def finish(self, outcome: str) -> None:
        """Say how the step ended and how long it took."""
        if self._tty:
            self._stream.write("\r\x1b[K")
        self._print(f"{self._title}: {outcome} ({elapsed(self._clock() - self._started)})")

    def _text(self, now: float) -> str:
        activity = f": {self._activity}" if self._activity else ""
        return f"{self._title}{activity}, {elapsed(now - self._started)} elapsed"

    def _print(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


def elapsed(seconds: float) -> str:
    """Seconds as minutes and seconds, such as ``3:07``."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02}"


def run_step(title: str, command: Sequence[str], log: Path, stream: TextIO | None = None) -> None:
    """Run ``command``, append what it prints to ``log``, and report on ``stream`` (standard output).

    Raises `StepFailed` with the end of the log, and what to do about it, if it fails.
    """
    stream = stream or sys.stdout
    reporter = Reporter(title, stream, tty=stream.isatty())
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    with log.open("a", encoding="utf-8") as file:

        def keep(line: str) -> None:
            file.write(line)
            tail.append(line)

        file.write(f"$ {shlex.join(command)}\n")
        code = _follow(command, reporter, keep)
    reporter.finish("done" if code == 0 else "FAILED")
    if code != 0:
        output = "".join(tail)
        end = f"{output}\nThat was the end of {log}: {title} failed with status {code}."
        raise StepFailed("\n".join([end, *advise(output, code)]), output)


def _follow(command: Sequence[str], reporter: Reporter, keep: Callable[[str], None]) -> int:
    """Run ``command`` and hand on each line it prints; return its exit status.

    A thread reads, so that the elapsed time moves on while the command is silent.
    """
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    assert process.stdout is not None
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_pump, args=(process.stdout, lines), daemon=True).start()
    try:
        while (line := _next_line(lines)) is not None:
            if line:
                keep(line)
                reporter.feed(line)
            reporter.tick()
        return process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
        process.stdout.close()


def _pump(source: TextIO, lines: queue.SimpleQueue[str | None]) -> None:
    for line in source:
        lines.put(line)
    lines.put(None)


def _next_line(lines: queue.SimpleQueue[str | None]) -> str | None:
    """The next line, "" if there is none for a second, or None at the end."""
    try:
        return lines.get(timeout=1.0)
    except queue.Empty:
        return ""
