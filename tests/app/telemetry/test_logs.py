from __future__ import annotations

import datetime
import io
import json
import logging
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from structlog.contextvars import bound_contextvars

from app.telemetry import logs

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def lines(stream: io.StringIO) -> Lines:
    logs.configure("INFO", "json", stream)
    return lambda: [json.loads(line, parse_constant=pytest.fail) for line in stream.getvalue().splitlines()]


def test_a_line_has_exactly_the_agreed_shape(
    lines: Lines, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = datetime.datetime(2026, 1, 20, 10, 30, 45).timestamp()
    monkeypatch.setattr(time, "time", lambda: moment)
    monkeypatch.setattr(time, "time_ns", lambda: int(moment * 1e9))
    with bound_contextvars(request_id="req_123456"):
        logs.get_logger("inference_engine").info(
            "model_inference", model_name="m", prompt_tokens=128, inference_time=2.45
        )
    assert stream.getvalue() == (
        '{"timestamp": "2026-01-20 10:30:45", "level": "INFO", "module": "inference_engine", '
        '"event": "model_inference", "data": {"model_name": "m", "prompt_tokens": 128, '
        '"inference_time": 2.45, "request_id": "req_123456"}}\n'
    )


def test_the_standard_library_leaves_through_the_same_door(lines: Lines) -> None:
    with bound_contextvars(request_id="r"):
        logging.getLogger("engines.x").warning("slow by %d ms", 5, extra={"step": 3})
    (line,) = lines()
    assert list(line) == ["timestamp", "level", "module", "event", "data"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", line["timestamp"])
    assert (line["level"], line["module"], line["event"]) == ("WARNING", "engines.x", "slow by 5 ms")
    assert line["data"] == {"step": 3, "request_id": "r"}


def test_a_field_wins_over_what_is_bound(lines: Lines) -> None:
    with bound_contextvars(request_id="bound", model="bound"):
        logs.get_logger("x").info("e", model="own")
    assert lines()[0]["data"] == {"model": "own", "request_id": "bound"}


def test_uvicorn_prints_once_and_without_its_colours(lines: Lines) -> None:
    own = io.StringIO()
    logging.getLogger("uvicorn").addHandler(logging.StreamHandler(own))
    logs.configure("INFO", "json", logging.getLogger().handlers[0].stream)  # type: ignore[attr-defined]
    extra = {"color_message": "\x1b[1mStarted\x1b[0m"}
    logging.getLogger("uvicorn.error").info("Started\n", extra=extra)
    assert [(line["event"], line["data"]) for line in lines()] == [("Started", {})]
    assert own.getvalue() == ""


@pytest.mark.parametrize("source", ["ours", "stdlib"])
def test_an_exception_becomes_text_in_data(lines: Lines, source: str) -> None:
    try:
        raise ValueError("bad luck")
    except ValueError:
        if source == "ours":
            logs.get_logger("x").exception("failed", step=1)
        else:
            logging.getLogger("x").exception("failed", extra={"step": 1})
    (line,) = lines()
    assert line["level"] == "ERROR"
    assert set(line["data"]) == {"step", "exception"}
    assert line["data"]["exception"].startswith("Traceback (most recent call last)")
    assert line["data"]["exception"].endswith("ValueError: bad luck")


def test_an_exception_object_can_be_logged_after_it_was_handled(lines: Lines) -> None:
    logs.get_logger("x").error("failed", exc_info=ValueError("late"))
    assert lines()[0]["data"] == {"exception": "ValueError: late"}


@pytest.mark.parametrize("exc_info", [True, False, None])
def test_no_exception_means_no_entry(lines: Lines, exc_info: bool | None) -> None:
    logs.get_logger("x").error("failed", exc_info=exc_info)
    assert lines()[0]["data"] == {}


def test_fields_named_like_the_frame_stay_in_data(lines: Lines) -> None:
    logs.get_logger("x").info("e", level=3, module="m", timestamp=0, data=[1], logger="l")
    (line,) = lines()
    assert (line["level"], line["module"]) == ("INFO", "x")
    assert line["data"] == {"level": 3, "module": "m", "timestamp": 0, "data": [1], "logger": "l"}


class Rude:
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


def cycle() -> list[object]:
    circle: list[object] = [1]
    circle.append(circle)
    return circle


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ({1, 2}, "{1, 2}"),
        (b"\xff", "b'\\xff'"),
        (float("nan"), "nan"),
        ({"a": [float("inf")]}, {"a": ["inf"]}),
        ({(1, 2): "tuple key"}, {"(1, 2)": "tuple key"}),
        (Rude(), "<Rude>"),
        ([Rude(), float("nan")], ["<Rude>", "nan"]),
        ("line\nbreak \ud800", "line\nbreak \ud800"),
        (None, None),
    ],
)
def test_odd_values_are_written_somehow(stream: io.StringIO, value: object, written: object) -> None:
    logs.configure("INFO", "json", stream)  # here, since pytest's own handler trips over rude values
    logs.get_logger("x").info("e", value=value)
    line = json.loads(stream.getvalue(), parse_constant=pytest.fail)
    assert line["data"] == {"value": written}


def test_a_cycle_ends(lines: Lines) -> None:
    logs.get_logger("x").info("e", value=cycle())
    assert lines()[0]["data"]["value"][0] == 1


def test_the_event_itself_may_be_anything(lines: Lines) -> None:
    logging.getLogger("x").info({"not": "text"})
    logs.get_logger("x").info("with % sign")
    assert [line["event"] for line in lines()] == ["{'not': 'text'}", "with % sign"]


def test_less_severe_lines_are_dropped_and_chatty_libraries_are_quiet(stream: io.StringIO) -> None:
    logs.configure("INFO", "json", stream)
    logs.get_logger("x").debug("hidden")
    logging.getLogger("httpx").info("hidden")
    assert stream.getvalue() == ""
    logs.configure("DEBUG", "json", stream)
    logs.get_logger("x").debug("shown")
    logging.getLogger("httpx").info("shown")
    assert stream.getvalue().count("shown") == 2


def test_a_logger_made_before_configure_works(stream: io.StringIO) -> None:
    log = logs.get_logger("early")
    logs.configure("INFO", "json", stream)
    log.info("e")
    logs.configure("INFO", "json", other := io.StringIO())
    log.info("f")
    assert json.loads(stream.getvalue())["module"] == "early"
    assert json.loads(other.getvalue())["event"] == "f"


def test_text_is_for_people(stream: io.StringIO) -> None:
    logs.configure("INFO", "text", stream)
    logs.get_logger("inference_engine").warning("slow", step=3)
    try:
        raise ValueError("bad luck")
    except ValueError:
        logging.getLogger("uvicorn.error").exception("failed")
    first, *rest = stream.getvalue().splitlines()
    assert re.match(r"\d\d:\d\d:\d\d \[warning", first)
    assert "slow" in first
    assert "inference_engine" in first
    assert "step=3" in first
    assert rest[-1] == "ValueError: bad luck"
    assert "\x1b" not in stream.getvalue(), "colours in what is no terminal"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("format", "terminal", "is_text"),
    [("auto", True, True), ("auto", False, False), ("text", False, True), ("json", True, False)],
)
def test_a_terminal_gets_text_unless_it_is_said_otherwise(
    format: logs.Format, terminal: bool, is_text: bool
) -> None:
    stream = Terminal() if terminal else io.StringIO()
    logs.configure("INFO", format, stream)
    logs.get_logger("x").info("e")
    assert stream.getvalue().startswith("{") is not is_text


@pytest.mark.parametrize(("variable", "colours"), [(None, True), ("NO_COLOR", False)])
def test_colours_are_for_terminals_that_want_them(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, colours: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if variable:
        monkeypatch.setenv(variable, "1")
    logs.configure("INFO", "auto", stream := Terminal())
    logs.get_logger("x").info("e")
    assert ("\x1b[3" in stream.getvalue()) is colours


def test_what_clients_sent_does_not_drive_the_terminal(stream: io.StringIO) -> None:
    logs.configure("INFO", "text", stream)
    logs.get_logger("x").info("two\nlines\x1b[2J", model="m\x1b]0;title\x07\u202e")
    assert "\x1b" not in stream.getvalue()
    assert "two\nlines\\x1b[2J" in stream.getvalue()


@pytest.mark.parametrize("format", ["json", "text"])
def test_uvicorn_logs_no_requests_of_its_own(stream: io.StringIO, format: logs.Format) -> None:
    """However it was started: it logs them if its logger has handlers anywhere above it."""
    logs.configure("INFO", format, stream)
    assert not logging.getLogger("uvicorn.access").hasHandlers()


@pytest.mark.parametrize("format", ["json", "text"])
def test_writing_a_line_twice_gives_the_same_twice(stream: io.StringIO, format: logs.Format) -> None:
    logs.configure("INFO", format, stream)
    root = logging.getLogger()
    root.handlers.append(root.handlers[0])
    logs.get_logger("x").info("e", step=1, exc_info=ValueError("late"))
    half = len(stream.getvalue()) // 2
    assert stream.getvalue()[:half] == stream.getvalue()[half:]
    assert "ValueError: late" in stream.getvalue()
