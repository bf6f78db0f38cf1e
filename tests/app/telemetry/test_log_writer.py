"""Log lines go out in order, and nobody waits for who reads them."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, TextIO

import pytest

from app.telemetry import log_writer, logs
from app.telemetry.log_writer import LogWriter, dropped_lines
from support.live import wait_until

pytestmark = pytest.mark.processes

LINE = "x" * 1000
PIPE_BYTES = 2**16


class Pipe:
    """A pipe: what is written into ``end`` is in `lines` once it was read."""

    def __init__(self) -> None:
        self._read, write = os.pipe()
        self.end: TextIO = os.fdopen(write, "w")
        self._data = b""

    def read(self, size: int = 2**20) -> None:
        self._data += os.read(self._read, size)

    def drain(self) -> None:
        """Read to the end, which comes when `end` is closed."""
        while os.read(self._read, 2**20):
            pass

    @property
    def lines(self) -> list[str]:
        return self._data.decode().split("\n")[:-1]

    def close(self) -> None:
        if not self.end.closed:
            self.end.close()
        os.close(self._read)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


@pytest.fixture
def writer(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> Iterator[LogWriter]:
    monkeypatch.setattr(log_writer, "FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(log_writer, "MOST_WAITING", 50_000)
    writer = LogWriter(pipe.end)
    yield writer
    drain = threading.Thread(target=pipe.drain)  # lets the writer's thread go on
    drain.start()
    writer.close()
    pipe.end.close()
    drain.join()


def say(writer: LogWriter, text: str, level: int = logging.INFO) -> None:
    writer.handle(logging.LogRecord("x", level, "", 0, text, None, None))


def test_lines_come_in_order_and_whole(writer: LogWriter, pipe: Pipe) -> None:
    texts = [f"{number} {'é' * 40}" for number in range(200)]
    for text in texts:
        say(writer, text)
    wait_until(lambda: (pipe.read(), len(pipe.lines) == len(texts))[1])
    assert pipe.lines == texts


def test_lines_of_many_threads_are_not_mixed(writer: LogWriter, pipe: Pipe) -> None:
    threads = [
        threading.Thread(target=lambda n=n: [say(writer, f"{n} {i}") for i in range(200)]) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: (pipe.read(), len(pipe.lines) == 800)[1])
    for number in range(4):
        own = [line for line in pipe.lines if line.startswith(f"{number} ")]
        assert own == [f"{number} {i}" for i in range(200)]


def test_nobody_waits_for_a_pipe_that_is_not_read_and_drops_are_counted(
    writer: LogWriter, pipe: Pipe
) -> None:
    before = dropped_lines()
    began = time.monotonic()
    for number in range(1000):
        say(writer, f"{number} {LINE}")
    assert time.monotonic() - began < 5
    dropped = dropped_lines() - before
    assert dropped > 500
    told = f"{dropped} lines of the log were dropped: they were not read fast enough"
    wait_until(lambda: (pipe.read(), told in pipe.lines)[1])
    say(writer, "later")
    wait_until(lambda: (pipe.read(), "later" in pipe.lines)[1])
    numbers = [int(line.split()[0]) for line in pipe.lines if line.endswith(LINE)]
    assert numbers == sorted(numbers)
    assert len(numbers) == 1000 - dropped
    assert pipe.lines[-2:] == [told, "later"]


def test_who_flushes_waits_for_what_was_logged_but_not_for_ever(writer: LogWriter, pipe: Pipe) -> None:
    say(writer, "now")
    writer.flush()
    os.set_blocking(pipe._read, False)
    pipe.read()
    assert pipe.lines == ["now"]
    for _ in range(2 * PIPE_BYTES // len(LINE)):
        say(writer, LINE)
    began = time.monotonic()
    writer.flush()
    assert time.monotonic() - began < 1
    os.set_blocking(pipe._read, True)


def test_a_pipe_without_a_reader_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    with os.fdopen(write, "w") as end:
        os.close(read)
        writer, before = LogWriter(end), dropped_lines()
        say(writer, "gone")
        writer.close()
        assert dropped_lines() == before + 1
        say(writer, "again")  # after its end, too
        writer.close()
        assert dropped_lines() == before + 2


def test_a_pipe_that_does_not_block_is_waited_for(writer: LogWriter, pipe: Pipe) -> None:
    os.set_blocking(pipe.end.fileno(), False)
    texts = [f"{number} {LINE}" for number in range(45)]
    for text in 2 * texts[:22]:
        say(writer, text)
    wait_until(lambda: (pipe.read(), len(pipe.lines) == 44)[1])
    assert pipe.lines == 2 * texts[:22]


def test_what_cannot_be_formatted_is_counted(writer: LogWriter) -> None:
    before = dropped_lines()
    writer.handle(logging.LogRecord("x", logging.INFO, "", 0, "%d", ("no number",), None))
    assert dropped_lines() == before + 1


ENDS = {
    "usual": "pass",
    "exception": "raise SystemExit(1)",
    "failure": "1 / 0",
    "at once": "logs.flush(); os._exit(1)",
}
PROGRAM = """
import os
from app.telemetry import logs
logs.configure("INFO", "json")
for number in range(300):
    logs.get_logger("x").info("line", number=number)
"""


@pytest.mark.parametrize("end", ENDS)
def test_no_line_is_lost_when_the_process_ends(end: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM + ENDS[end]], capture_output=True, text=True, timeout=60
    )
    lines = [json.loads(line) for line in ended.stderr.splitlines() if line.startswith("{")]
    assert [line["data"]["number"] for line in lines] == list(range(300))
    assert ("ZeroDivisionError" in ended.stderr) == (end == "failure")


def test_a_process_whose_log_nobody_reads_goes_on() -> None:
    command = [sys.executable, "-c", PROGRAM.replace("300", "3000") + "print('done', flush=True)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        process.kill()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_logs_as_well() -> None:
    fork = "\npid = os.fork()\nlogs.get_logger('x').info('of', child=not pid)\npid and os.waitpid(pid, 0)\n"
    ended = subprocess.run([sys.executable, "-c", PROGRAM + fork], capture_output=True, text=True, timeout=60)
    of = [json.loads(line)["data"]["child"] for line in ended.stderr.splitlines() if '"of"' in line]
    assert sorted(of) == [False, True]


def test_logging_goes_by_way_of_it(pipe: Pipe) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        logs.configure("INFO", "json", pipe.end)
        logging.getLogger("httpx").warning("GET https://hub/file?signature=secret 200")
        logs.get_logger("x").info("e", n=1)
        logs.configure("INFO", "json", sys.__stderr__)  # ends the one before
        pipe.read()
    finally:
        root.handlers[:], root.level = before
    found: list[dict[str, Any]] = [json.loads(line) for line in pipe.lines]
    assert [line["event"] for line in found] == ["GET https://hub/file?… 200", "e"]
