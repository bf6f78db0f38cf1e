"""The worker protocol: all that a server and its workers say to each other, on pipes and over HTTP.

On the pipes go JSON objects, one a line. The server sends a `Start` and keeps the pipe open for as long as
the worker shall live. The worker answers with ``{"progress": 0..1, "phase": …}`` while it loads, then
``{"ready": …}``; with ``{"failed": message, "kind": …}`` it says why it ends.

Over HTTP a worker serves the same routes as the server. With `PARENT_HEADER` the parent asks for comments
between the events of a stream, which it takes out before the client sees them:

    :begin {"prompt_tokens": 37, "created": 1764000000}    at first; ``created`` if the answer can be resumed
    :tokens 12,13                                           in front of the event that these tokens make
    :together 3                                             in front of as many events that those tokens make
    :last                                                   what follows belongs together, up to ``:end``
    :usage {"prompt_tokens": …, …}                          the token counts of the whole answer
    :end                                                    the stream is complete
    :error message                                          the stream breaks off, and why

Tokens whose text is held back go with the next event, an opening event has none: so whoever read an event
to its end knows the tokens to go on from. With `RESUME_HEADER` the parent says how many bytes at the
beginning of a request's body are the resume point of an answer to go on with; the client's own body
follows. No client can speak this: its headers and body never become these headers, comments of ours never
come from its text (which is JSON in ``data:`` lines), and a worker answers nobody but its parent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from balancer.call import ResumePoint
from engines.base import EngineInfo, EngineStats, Usage
from engines.errors import (
    BadModelFile,
    CannotLoad,
    EngineError,
    ModelFileNotFound,
    ModelLoadError,
    UnsupportedFeature,
)

Message = dict[str, Any]
Header = tuple[bytes, bytes]

STATUS_PATH = "/v1/worker"
"""The path that a worker answers with its `WorkerStatus`."""

_KINDS = {kind.__name__: kind for kind in (CannotLoad, ModelFileNotFound, BadModelFile, ModelLoadError)}


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """The worker to start for ``model``: all that its process needs to know.

    ``adapters`` are the model's that no catalog names, each with its name, path and scale.

    ``path``: the model's file or folder, if it has one. ``port`` is the lowest that it may listen on;
    ``settings`` override fields of the application's settings, ``options`` are those of the load
    (`LoadOptions`), ``environment`` is added to the server's, of which it has no secrets. ``key`` is
    the Bearer key it accepts.
    """

    model: str
    port: int
    key: str = field(repr=False)
    path: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    adapters: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Start:
    """The first line that a worker reads. ``listener``: the descriptor of its listening socket."""

    spec: WorkerSpec
    listener: int

    def to_line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: str | bytes) -> Start:
        message = json.loads(line)
        return cls(WorkerSpec(**message["spec"]), message["listener"])


def progress_message(phase: str, fraction: float) -> Message:
    return {"progress": fraction, "phase": phase}


def ready_message(info: EngineInfo) -> Message:
    values = {each.name: getattr(info, each.name) for each in fields(info)}
    return {"ready": values | {"capabilities": sorted(info.capabilities), "details": dict(info.details)}}


def failed_message(error: EngineError) -> Message:
    kind = next((name for name, kind in _KINDS.items() if isinstance(error, kind)), ModelLoadError.__name__)
    return {"failed": error.message, "kind": kind}


def info_from(ready: Mapping[str, Any]) -> EngineInfo:
    """The `EngineInfo` in a `ready_message`, without the ability to sleep, which no worker has."""
    changed = {
        "devices": tuple(ready["devices"]),
        "dimensions": tuple(ready["dimensions"]),
        "capabilities": frozenset(ready["capabilities"]) - {"sleep"},
        "memory_asleep": 0,
    }
    return EngineInfo(**{**ready, **changed})


def error_from(message: Mapping[str, Any]) -> ModelLoadError:
    return _KINDS.get(message.get("kind", ""), ModelLoadError)(message["failed"])


def refusal_from(status: int, body: bytes) -> EngineError:
    """The error that a worker answered a management route with."""
    try:
        said = json.loads(body)["error"]
        message, is_lacking = str(said["message"]), said["code"] == "unsupported_feature"
    except (ValueError, LookupError, TypeError, RecursionError):
        message, is_lacking = f"a worker answered with status {status}", False
    if is_lacking:
        return UnsupportedFeature(message)
    return BadModelFile(message) if status < 500 else ModelLoadError(message)


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """Health and figures of a worker's engine. ``metrics``: its own ones, if any (`HasMetrics`)."""

    ok: bool
    detail: str
    stats: EngineStats
    metrics: Mapping[str, float]

    @classmethod
    def from_json(cls, body: bytes) -> WorkerStatus:
        """Raises `ValueError` if ``body`` is none."""
        try:
            found = json.loads(body)
            return cls(found["ok"], found["detail"], EngineStats(**found["stats"]), found["metrics"])
        except (KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"no status of a worker: {error!r}") from None


# -- over HTTP --------------------------------------------------------------------------------------

PARENT_HEADER = b"x-enginehouse-parent"
RESUME_HEADER = b"x-enginehouse-resume"

TOGETHER = b":together "
LAST = b":last\n\n"
END = b":end\n\n"


def worker_request(body: bytes, resume_point: ResumePoint | None) -> tuple[list[Header], bytes]:
    """The headers and the body that ask a worker for comments, and to go on from ``resume_point``."""
    headers = [(PARENT_HEADER, b"1")]
    if resume_point is None:
        return headers, body
    point = json.dumps(asdict(resume_point)).encode()
    return [*headers, (RESUME_HEADER, b"%d" % len(point))], point + body


def read_resume_point(size: str | None, body: bytes) -> tuple[ResumePoint | None, bytes]:
    """The resume point in front of ``body`` and what the client sent; ``size`` is `RESUME_HEADER`'s value.

    Raises `ValueError` for what no parent sends.
    """
    if size is None:
        return None, body
    try:
        length = int(size)
        point = json.loads(body[:length])
        return ResumePoint(tuple(map(int, point["token_ids"])), int(point["created"])), body[length:]
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise ValueError(f"no resume point: {error!r}") from None


def begin_comment(prompt_tokens: int, created: int | None) -> bytes:
    resumable = {} if created is None else {"created": created}
    return b":begin %s\n\n" % json.dumps({"prompt_tokens": prompt_tokens, **resumable}).encode()


def tokens_comment(token_ids: Sequence[int]) -> bytes:
    return b":tokens %s\n" % ",".join(map(str, token_ids)).encode() if token_ids else b""


def together_comment(events: bytes) -> bytes:
    """In front of several ``events``: whoever reads only some of them does not know how far the answer is."""
    count = events.count(b"\n\n")
    return b"%b%d\n" % (TOGETHER, count) if count > 1 else b""


def end_of_together(data: bytes, position: int) -> int:
    """Where the events end that a `together_comment` at ``position`` speaks of; -1 if some are yet to come.

    Raises `ValueError` for what is no such comment.
    """
    stop = data.index(b"\n", position)
    count = int(data[position + len(TOGETHER) : stop])
    for _ in range(count):
        position = data.find(b"\n\n", position) + 2
        if position < 2:
            return -1
    return position


def usage_comment(usage: Usage) -> bytes:
    return b":usage %s\n\n" % json.dumps(asdict(usage)).encode()


def error_comment(message: str) -> bytes:
    return b":error %s\n\n" % json.dumps(message).encode()


def usage_from(value: bytes) -> Usage:
    """The usage in a comment's ``value``. Raises `ValueError` or `TypeError`."""
    return Usage(**json.loads(value))
