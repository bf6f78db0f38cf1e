"""A child process's output becomes a part of our log."""

from __future__ import annotations

import logging

import pytest

from balancer.workers.logs import LINES_PER_SECOND, Lines, LogRelay
from support.worker_logs import line


def test_lines_are_cut() -> None:
    lines = Lines(4)
    assert lines.feed(b"ab") == []
    assert lines.feed(b"c\nde") == [b"abc"]
    for _ in range(1000):
        assert lines.feed(b"x" * 100) == []
    assert lines.feed(b"\nnext\nla") == [b"dexx", b"next"]
    assert lines.end() == [b"la"]
    assert lines.end() == []


def test_a_flood_is_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    now = 0.0
    log = LogRelay({"instance": "i"}, clock=lambda: now)
    for _ in range(LINES_PER_SECOND + 7):
        log.take(b"spam")
    assert caplog.messages == ["spam"] * LINES_PER_SECOND
    now = 1.0
    log.take(b"later")
    assert caplog.messages[-2:] == ["7 lines of the log were dropped: too many at once", "later"]


@pytest.mark.parametrize("text", ["[" * 10000, '{"level": 1}', '{"a":' * 5000, "{}", '"'])
def test_what_is_no_log_line_is_logged_as_it_is(text: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    LogRelay({}).take(text.encode())
    assert caplog.messages == [text]


def test_no_damage_to_a_line_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that are missing, doubled or others: whatever is left of a line, it is taken."""
    taken: list[str] = []
    # Not captured: pytest's workers cannot send a report with half a surrogate pair in it.
    monkeypatch.setattr(logging.Logger, "handle", lambda _, record: taken.append(record.getMessage()))
    whole = line("it said", "ERROR", pid=1, message="x", args=[{"a": 1}], deep={"a": {"b": [None]}}).encode()
    log = LogRelay({"instance": "i"}, clock=iter(range(10**6)).__next__)
    for at in range(len(whole)):
        for patch in (b"", whole[at : at + 1] * 2, b"\xff", b"\\ud800", b'"', b"{", b"1"):
            log.take(whole[:at] + patch + whole[at + 1 :])
    assert len(taken) > len(whole)


def test_last_words_are_errors_and_plain_lines() -> None:
    log = LogRelay({})
    for words in (line("all is well"), line("it broke", "ERROR"), "Traceback"):
        log.take(words.encode())
    assert log.last_words == "it broke\nTraceback"
