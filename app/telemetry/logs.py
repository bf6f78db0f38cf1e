"""Structured logs: one JSON object a line, or coloured lines for people.

Our own events (structlog) and everybody else's (stdlib ``logging``: uvicorn, httpx, the packages below
``app``) leave through one handler, so all lines have the same shape::

    {"timestamp": "2026-01-20 10:30:45", "level": "INFO", "module": "…", "event": "…", "data": {…}}

``data`` holds the event's fields, then what `structlog.contextvars` bound (the request id). A line is
always strict JSON; a value that JSON cannot express is written as text.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import time
from collections.abc import Mapping
from typing import Any, Literal, TextIO

import structlog
from rich.console import Console
from structlog.contextvars import get_contextvars
from structlog.stdlib import BoundLogger, ExtraAdder, ProcessorFormatter
from structlog.typing import EventDict, Processor, WrappedLogger

from app.telemetry.log_text import FOR_PEOPLE, text_processors
from app.telemetry.log_writer import LogWriter

Format = Literal["auto", "json", "text"]

# They log every request or frame at INFO; at DEBUG they are let through.
_CHATTY = ("httpx", "httpcore", "aiohttp.access", "asyncio")

# What follows a URL's question mark may be a signature or a key.
_QUERY = re.compile(r"""(\bhttps?://[^\s"'?#]+)\?[^\s"']*""")

_MAX_DEPTH = 8


def configure(level: str = "INFO", format: Format = "json", stream: TextIO | None = None) -> None:
    """Send all logging of this process to ``stream`` (stderr unless given). May be called again.

    ``auto`` is ``text`` for a terminal, and ``json`` for anything else.
    """
    stream = stream or sys.stderr
    handler = LogWriter(stream) if _is_file(stream) else logging.StreamHandler(stream)
    is_text = for_people(format, stream)
    handler.setFormatter(_formatter(is_text=is_text, colors=_takes_colors(stream)))
    root = logging.getLogger()
    for former in root.handlers:
        if isinstance(former, LogWriter):
            former.close()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # No line tells a caller, a thread or a process: finding them out is a quarter of what a line costs.
    logging._srcfile = None  # as logging's documentation advises
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    quiet = logging.NOTSET if root.level <= logging.DEBUG else logging.WARNING
    for name in _CHATTY:
        logging.getLogger(name).setLevel(quiet)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        # uvicorn brings its own handlers; two would print each line twice.
        logging.getLogger(name).handlers.clear()
        # Requests have a line of ours; without handlers uvicorn makes none, however it was started.
        logging.getLogger(name).propagate = name != "uvicorn.access"
    # That its process has started, it says in four lines, of which people have no use.
    logging.getLogger("uvicorn.error").setLevel(quiet if is_text else logging.NOTSET)
    structlog.configure(
        processors=_PROCESSORS,
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=BoundLogger,
        cache_logger_on_first_use=True,
    )


def flush() -> None:
    """Wait until what was logged is written, but not for long: for who ends the process at once."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def get_logger(module: str) -> BoundLogger:
    """A logger whose lines carry ``module``; may be made before `configure` runs."""
    return structlog.stdlib.get_logger(module)


def for_people(format: Format, stream: TextIO | None = None) -> bool:
    """Whether lines of this format are text."""
    return format == "text" or (format == "auto" and (stream or sys.stderr).isatty())


def _takes_colors(stream: TextIO) -> bool:
    """Whether it is a terminal that shows colours, and nobody has forbidden them (NO_COLOR)."""
    console = Console(file=stream)
    return stream.isatty() and console.color_system is not None and not console.no_color


def _is_file(stream: TextIO) -> bool:
    try:
        stream.fileno()
    except (OSError, ValueError):
        return False
    return True


def _formatter(*, is_text: bool, colors: bool) -> ProcessorFormatter:
    shape: list[Processor]
    if is_text:
        shape = text_processors(colors=colors)
    else:
        shape = [structlog.processors.format_exc_info, _to_line, _render]
    return _Formatter(
        foreign_pre_chain=[ExtraAdder(), _clean_foreign, _add_context],
        processors=[_note_exception, *shape],
    )


class _Formatter(ProcessorFormatter):
    """Does not copy the record of our own events first: no other handler is there to need it."""

    def format(self, record: logging.LogRecord) -> str:
        if not hasattr(record, "_logger") or not isinstance(record.msg, dict):
            return super().format(record)
        event: Any = {**record.msg, "_record": record}
        for process in self.processors:
            event = process(None, record.levelname, event)
        line: str = event
        return line


def _add_context(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Add what is bound for this request, behind the event's own fields and never over them."""
    for key, value in get_contextvars().items():
        event.setdefault(key, value)
    return event


# One list for the process: loggers keep the one they were first used with, and structlog's own
# `capture_logs` exchanges its contents.
_PROCESSORS: list[Processor] = [
    structlog.stdlib.filter_by_level,
    _add_context,
    ProcessorFormatter.wrap_for_formatter,
]


def _clean_foreign(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    event.pop("color_message", None)  # uvicorn's copy of the message, with terminal colours
    event["event"] = _QUERY.sub(r"\1?…", str(event["event"]).strip())
    return event


def _note_exception(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Drop ``exc_info=True`` where nothing is being handled, so that no empty exception is logged."""
    info = event.pop("exc_info", None)
    if info and (info is not True or sys.exc_info()[0] is not None):
        event["exc_info"] = info
    return event


def _to_line(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    record: logging.LogRecord = event.pop("_record")
    event.pop("_from_structlog", None)
    event.pop(FOR_PEOPLE, None)
    return {
        "timestamp": _timestamp(record),
        "level": record.levelname,
        "module": record.name,
        "event": event.pop("event", ""),
        "data": event,
    }


def _timestamp(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))


def _render(logger: WrappedLogger, method: str, line: EventDict) -> str:
    try:
        return _encode(line)
    except (TypeError, ValueError, RecursionError):
        # A key that is no string, NaN, a cycle: rare, so only then is the line copied.
        return _encode(_plain(line, _MAX_DEPTH))


def _plain(value: Any, depth: int) -> Any:
    """A copy that JSON can express; what lies deeper than ``depth`` becomes text."""
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else _text(value)
    if depth and isinstance(value, Mapping):
        return {_text(key): _plain(item, depth - 1) for key, item in value.items()}
    if depth and isinstance(value, (list, tuple)):
        return [_plain(item, depth - 1) for item in value]
    return _text(value)


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__}>"


_encode = json.JSONEncoder(default=_text, allow_nan=False).encode
