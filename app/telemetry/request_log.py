"""The log of requests: one line each, when it has ended.

A request for an inference has the line of its outcome, which shows its method, path and status to people
only: its shape as JSON is agreed. Any other has a line of these. Probes come every few seconds and say
nothing: theirs are for debugging.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any
from urllib.parse import quote

from app.inference.outcome import RequestOutcome, Sink
from app.telemetry.log_text import FOR_PEOPLE, HTTP, INFERENCE
from app.telemetry.logs import get_logger

PROBES = frozenset({"/healthz", "/readyz", "/health", "/metrics"})
# What is asked again and again while somebody waits: of a model, and of the cluster.
STATUS = "/status"

log = get_logger(INFERENCE[0])
http_log = get_logger(HTTP[0])

_current: ContextVar[RequestLine | None] = ContextVar("request_line", default=None)


class RequestLine:
    """The line of one HTTP request. ``status`` is None until its answer began."""

    __slots__ = ("_began", "_method", "_path", "_write_outcome", "is_written", "status")

    def __init__(self, method: str, path: str) -> None:
        self._method = method
        self._path = path
        self._began = time.perf_counter()
        self._write_outcome: Callable[[], None] | None = None
        self.status: int | None = None
        self.is_written = False

    @classmethod
    def begun(cls, method: str, path: str) -> RequestLine:
        """The line of the request that this context serves from now on."""
        line = cls(method, path)
        _current.set(line)
        return line

    def keep(self, write_outcome: Callable[[], None]) -> None:
        """Have the line be that of an outcome, which came before the answer's end."""
        self._write_outcome = write_outcome

    def write(self) -> None:
        """The request has ended."""
        self.is_written = True
        if self._write_outcome is not None:
            self._write_outcome()
            return
        level = http_log.debug if self._is_probe() else http_log.info
        level(HTTP[1], **self.fields(), duration=round(time.perf_counter() - self._began, 3))

    def _is_probe(self) -> bool:
        if self._method == "GET" and self._path.startswith("/v1/") and self._path.endswith(STATUS):
            return True
        return self._path in PROBES or (self._method, self._path) == ("HEAD", "/")

    def fields(self) -> dict[str, Any]:
        # Quoted: a path may hold what would end the line, or drive a terminal.
        return {
            "method": self._method,
            "path": quote(self._path, safe="/:@!$&'()*+,;=~"),
            "status": self.status,
        }


class RequestLog:
    """A sink of request outcomes. ``gpu_memory`` says how much GPU memory is in use, in bytes."""

    def __init__(self, gpu_memory: Callable[[], int] = lambda: 0) -> None:
        self._gpu_memory = gpu_memory

    def of_this_request(self) -> Sink:
        """The sink for the request that is being served: what it gets waits for the answer's status."""
        line = _current.get()
        return self if line is None else partial(self._keep, line)

    def _keep(self, line: RequestLine, outcome: RequestOutcome) -> None:
        if line.is_written:
            self._write(outcome, line)
        else:
            line.keep(partial(self._write, outcome, line))

    def __call__(self, outcome: RequestOutcome) -> None:
        self._write(outcome, None)

    def _write(self, outcome: RequestOutcome, line: RequestLine | None) -> None:
        usage, seconds = outcome.usage, outcome.duration
        extra: dict[str, Any] = {} if outcome.status == "finished" else {"outcome": outcome.status}
        if outcome.error is not None:
            extra["error"] = outcome.error
        if line is not None:
            extra[FOR_PEOPLE] = line.fields()
        log.info(
            INFERENCE[1],
            model_name=outcome.target.model,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            total_tokens=usage.prompt_tokens + usage.completion_tokens,
            inference_time=round(seconds, 3),
            tokens_per_second=round(usage.completion_tokens / seconds, 1) if seconds else 0.0,
            gpu_memory_used=f"{self._gpu_memory() / 2**30:.1f}GB",
            request_id=outcome.request_id,
            **extra,
        )
