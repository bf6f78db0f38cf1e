"""What was ignored is told in a header and logged once, in bounded memory."""

from __future__ import annotations

import pytest
from structlog.testing import CapturedCall, CapturingLogger

from app.inference.ignored import MAX_CLIENTS, MAX_FIELDS, MAX_NAME_LENGTH, MAX_NAMES, IgnoredFields


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[CapturedCall]:
    log = CapturingLogger()
    monkeypatch.setattr("app.inference.ignored.log", log)
    return log.calls


def test_one_warning_for_each_field_and_client(lines: list[CapturedCall]) -> None:
    ignored = IgnoredFields()
    assert ignored.tell("a", ["x", "y"]) == ignored.tell("a", ["x", "y"]) == "x, y"
    ignored.tell("a", ["y", "z"])
    ignored.tell("b", ["x"])
    told = [(line.method_name, line.kwargs["client"], line.kwargs["fields"]) for line in lines]
    assert told == [("warning", "a", ["x", "y"]), ("warning", "a", ["z"]), ("warning", "b", ["x"])]


def test_a_header_is_safe_whatever_the_names(lines: list[CapturedCall]) -> None:
    ignored = IgnoredFields()
    assert ignored.tell("a", ["\r\nset-cookie: x", "größe", "a.b-c_D"]) == "__set-cookie__x, gr__e, a.b-c_D"
    header = ignored.tell("b", ["x" * 10_000] * 10_000)
    assert header.endswith(f", +{10_000 - MAX_NAMES}")
    assert len(header) < (MAX_NAME_LENGTH + 2) * (MAX_NAMES + 1)
    assert all("\n" not in name for line in lines for name in line.kwargs["fields"])


def test_who_makes_up_names_fills_neither_log_nor_memory(lines: list[CapturedCall]) -> None:
    ignored = IgnoredFields()
    for i in range(1000):
        ignored.tell("a", [f"x{i}"])
    assert len(lines) == MAX_FIELDS
    for i in range(2 * MAX_CLIENTS):
        ignored.tell(f"client {i}", ["x"])
    assert len(ignored._logged) == MAX_CLIENTS
