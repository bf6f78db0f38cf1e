"""Log lines for people: a request in a few words, and everything else as structlog's console shows it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from app.first_steps import ready_text

# The lines that are shown in another way than others: module and event.
INFERENCE = ("inference_engine", "model_inference")
HTTP = ("http", "http_request")
LOADING = ("app", "loading")
READY = ("app", "ready")
# The field with what JSON leaves out of a line.
FOR_PEOPLE = "_for_people"


def text_processors(*, colors: bool) -> list[Processor]:
    """The end of a chain of processors, which makes a line of an event."""
    plain = structlog.dev.plain_traceback
    console = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain)

    def render(logger: WrappedLogger, method: str, event: EventDict) -> str:
        if "_block" in event:
            return str(event["_block"])
        return str(console(logger, method, event))

    return [_for_people, render]


def _for_people(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    record = event.pop("_record")
    event.pop("_from_structlog", None)
    kind = (record.name, event["event"])
    now = time.strftime("%H:%M:%S", time.localtime(record.created))
    frame = {"timestamp": now, "level": record.levelname.lower()}
    if kind == READY:
        return {"_block": ready_text(event)}
    words = {INFERENCE: _request, HTTP: _request, LOADING: _loading}.get(kind)
    if words is not None:
        return {"event": printable(words(event)), **frame}
    return {**{name: _harmless(value) for name, value in event.items()}, **frame, "logger": record.name}


def _request(data: Mapping[str, Any]) -> str:
    """``POST /v1/chat/completions 200 some-model 37+19 tokens, 23.1 tok/s, 821 ms``."""
    http = data.get(FOR_PEOPLE, data)
    words = [http.get(name) for name in ("method", "path", "status")]
    line = " ".join(str(word) for word in words if word is not None)
    if "model_name" not in data:
        return f"{line} {data['duration'] * 1e3:.0f} ms"
    counts = f"{data['prompt_tokens']}+{data['completion_tokens']} tokens, {data['tokens_per_second']} tok/s"
    line += f" {data['model_name']} {counts}, {data['inference_time'] * 1e3:.0f} ms"
    if outcome := data.get("outcome"):
        why = f": {data['error']}" if data.get("error") else ""
        line += f" ({outcome}{why}; {data['request_id']})"
    return line.strip()


def _loading(data: Mapping[str, Any]) -> str:
    """``loading some-model: 42 %, 12 s left``."""
    eta = data.get("eta_seconds")
    left = f", {eta} s left" if eta else ""
    return f"{data['phase']} {data['model']}: {data['percent']} %{left}"


def _harmless(value: Any) -> Any:
    """Text may come from a client: it is not to drive the terminal."""
    return printable(value, "\n\t") if isinstance(value, str) else value


def printable(text: str, kept: str = "") -> str:
    """``text`` with what is not printable written as Python writes it, but for the characters ``kept``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept else repr(c)[1:-1] for c in text)
