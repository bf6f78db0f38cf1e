"""The process meter."""

from __future__ import annotations

import os

import psutil
import pytest

from balancer.workers import usage as meter
from balancer.workers.usage import ProcessFigures, ProcessMeter


def test_cpu_is_measured_over_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now, used = 100.0, 3.0
    monkeypatch.setattr(meter.time, "monotonic", lambda: now)
    monkeypatch.setattr(meter, "_usage", lambda process: (used, 7))
    monkeypatch.setattr(psutil.Process, "children", lambda self, recursive=False: [])
    cpu = ProcessMeter(os.getpid())
    assert cpu.sample() == ProcessFigures(0.0, 7)
    now, used = 100.01, 3.01
    assert cpu.sample().cpu_percent == 0
    now, used = 102.0, 4.0
    assert cpu.sample().cpu_percent == pytest.approx(50)
    now, used = 104.0, 1.0  # a child of its own has ended
    assert cpu.sample().cpu_percent == 0
