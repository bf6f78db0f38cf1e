"""Worker protocol: the JSON objects, one a line, that cross the pipes between the server and a worker.

The server sends a `Start` and keeps the pipe open for as long as the worker shall live. The worker answers
with ``{"progress": 0..1, "phase": …}`` while it loads, then ``{"ready": …}``; with
``{"failed": message, "kind": …}`` it says why it ends.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from engines.base import EngineInfo, EngineStats
from engines.errors import CannotLoad, EngineError, ModelFileNotFound, ModelLoadError

Message = dict[str, Any]

STATUS_PATH = "/v1/instance"
"""The path that a worker answers with its `WorkerStatus`."""

_KINDS = {kind.__name__: kind for kind in (CannotLoad, ModelFileNotFound, ModelLoadError)}


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """The worker to start for ``model``: all that its process needs to know.

    ``path``: the model's file or folder, if it has one. ``port`` is the lowest that it may listen on;
    ``settings`` override fields of the application's settings, ``options`` are those of the load
    (`LoadOptions`), ``environment`` is added to the server's. ``key`` is the Bearer key it accepts.
    """

    model: str
    port: int
    key: str = field(repr=False)
    path: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


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
        "capabilities": frozenset(ready["capabilities"]) - {"sleep"},
        "memory_asleep": 0,
    }
    return EngineInfo(**{**ready, **changed})


def error_from(message: Mapping[str, Any]) -> ModelLoadError:
    return _KINDS.get(message.get("kind", ""), ModelLoadError)(message["failed"])


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """How a worker's engine does. ``metrics``: the engine's own figures, if it has any (`HasMetrics`)."""

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
