from __future__ import annotations

import logging
import os
import threading

import pytest

from engines.vllm.child_output import ChildOutput

LINE = "(Worker pid=7) {level} 11-22 12:02:03 [cpu_worker.py:114] {text}\n"


def say(output: ChildOutput, *lines: str) -> None:
    with open(output.pipe, "w") as pipe:
        pipe.writelines(lines)


def test_the_cause_is_the_first_error_of_substance() -> None:
    output = ChildOutput(lambda fraction: None)
    say(
        output,
        LINE.format(level="ERROR", text="Traceback (most recent call last):"),
        LINE.format(level="ERROR", text="torch.OutOfMemoryError: CUDA out of memory"),
        LINE.format(level="ERROR", text="RuntimeError: Engine core initialization failed. See above"),
    )
    output.close()
    assert output.cause() == "OutOfMemoryError: CUDA out of memory"


def test_phases_become_progress() -> None:
    seen: list[float] = []
    output = ChildOutput(seen.append)
    say(output, LINE.format(level="INFO", text="Starting to load model x..."), "50%\r100% Completed\n")
    output.close()
    assert seen == [0.75]
    assert output.cause() is None


def test_only_complaints_of_a_loaded_child_are_loud(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    output = ChildOutput(lambda fraction: None)
    output.loaded()
    say(output, LINE.format(level="INFO", text="fine"), LINE.format(level="ERROR", text="not fine"))
    output.close()
    levels = {record.getMessage(): record.levelname for record in caplog.records}
    assert levels["Worker: fine"] == "DEBUG"
    assert levels["Worker: not fine"] == "ERROR"


def test_closing_leaves_no_thread_file_or_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    output = ChildOutput(lambda fraction: None)
    output.close()
    output.close()
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before
    assert not output.pipe.parent.exists()
