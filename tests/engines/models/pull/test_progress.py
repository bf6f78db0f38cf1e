"""Speed and time left, with a clock of its own."""

from __future__ import annotations

from typing import Any

from engines.machine.job_process import Message
from engines.models.pull.progress import TransferMeter
from support.clock import Clock


def reports(messages: list[Message]) -> list[dict[str, Any]]:
    return [message["progress"] for message in messages]


def test_speed_follows_and_time_left_is_from_it() -> None:
    clock, sent = Clock(100.0), []
    meter = TransferMeter(sent.append, clock)
    meter.start("downloading", 10_000, 1000)
    for rate in [100] * 10 + [1000] * 20:
        clock.now += 1
        meter.add(rate, "a")
    speeds = [report["speed"] for report in reports(sent)]
    assert speeds[:11] == [0.0] + [100.0] * 10
    assert 300 < speeds[11] < 500 < speeds[13] < 900 < speeds[20] < 1000
    assert reports(sent)[10]["eta_seconds"] == 80.0


def test_reports_are_few_and_the_last_is_complete() -> None:
    clock, sent = Clock(100.0), []
    meter = TransferMeter(sent.append, clock)
    meter.start("verifying", 1000)
    for _ in range(1000):
        clock.now += 0.001
        meter.add(1, "a")
    meter.finish()
    assert len(sent) <= 7
    assert reports(sent)[-1]["completed"] == 1000


def test_a_phase_knows_nothing_of_the_last() -> None:
    clock, sent = Clock(100.0), []
    meter = TransferMeter(sent.append, clock)
    meter.start("downloading", 10)
    clock.now += 1
    meter.add(10, "a")
    meter.start("verifying", 10)
    assert reports(sent)[-1] == {
        "status": "verifying",
        "file": None,
        "completed": 0,
        "total": 10,
        "speed": 0.0,
        "eta_seconds": None,
    }
