"""The bodies of the system routes, and how they are made of the backends' statuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, Field

from app import __version__
from balancer.backends.base import BackendState, BackendStatus
from engines.lifecycle.states import ModelState

HealthState = Literal["ok", "degraded", "unavailable"]


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


class Version(BaseModel):
    version: str


class Welcome(Version):
    """What a program is told at the server's door."""

    name: Literal["Enginehouse"] = "Enginehouse"
    model: str = Field(description="The model that is loaded at the start.")
    state: ModelState
    api: Literal["/v1"] = "/v1"
    docs: Literal["/docs"] = "/docs"
    health: Literal["/health"] = "/health"
    metrics: Literal["/metrics"] = "/metrics"


class BackendReadiness(BaseModel):
    name: str
    model: str
    state: BackendState
    progress: float = Field(description="Of loading, 0 to 1.")
    detail: str = ""


class ReadinessReport(BaseModel):
    status: Literal["ready", "not_ready"]
    backends: list[BackendReadiness]

    @classmethod
    def of(cls, statuses: Sequence[BackendStatus]) -> ReadinessReport:
        return cls(
            status="not_ready" if health_of(statuses) == "unavailable" else "ready",
            backends=[BackendReadiness.model_validate(each, from_attributes=True) for each in statuses],
        )


class BackendReport(BackendReadiness):
    """A backend, and the engine behind it where one is loaded."""

    kind: str
    inflight: int = Field(description="Requests that the balancer sent there and that have not ended.")
    engine: str | None = None
    context_length: int | None = Field(None, description="Tokens, prompt and completion together.")
    max_sequences: int | None = Field(None, description="Sequences that decode at once.")
    devices: list[str] = []
    eta_seconds: float | None = Field(None, description="Of loading; null: not known.")
    restarts: int = Field(0, description="Times it was started again because it crashed or hung.")

    @classmethod
    def of(cls, status: BackendStatus) -> BackendReport:
        info = status.info
        return cls(
            name=status.name,
            model=status.model,
            state=status.state,
            progress=status.progress,
            detail=status.detail,
            kind=status.kind,
            inflight=status.inflight,
            engine=info.engine if info else None,
            context_length=info.context_length if info else None,
            max_sequences=info.max_sequences if info else None,
            devices=list(info.devices) if info else [],
            eta_seconds=status.eta_seconds,
            restarts=status.restarts,
        )


class SystemHealth(BaseModel):
    status: HealthState = Field(
        description="`ok`: every backend serves or is on its way. `degraded`: some serve, another is broken. "
        "`unavailable`: none serves."
    )
    version: str
    uptime_seconds: float
    backends: list[BackendReport]

    @classmethod
    def of(cls, statuses: Sequence[BackendStatus], uptime: float) -> SystemHealth:
        return cls(
            status=health_of(statuses),
            version=__version__,
            uptime_seconds=uptime,
            backends=[BackendReport.of(each) for each in statuses],
        )


def health_of(statuses: Sequence[BackendStatus]) -> HealthState:
    """The server's health, from its backends' states."""
    if not any(status.can_serve for status in statuses):
        return "unavailable"
    return "degraded" if any(status.is_broken for status in statuses) else "ok"


class Latency(BaseModel):
    """In seconds since the start; percentiles are estimated from histogram buckets."""

    count: int
    mean: float | None
    p50: float | None
    p95: float | None


class RequestCounts(BaseModel):
    """Requests that ended since the start."""

    finished: int
    error: int
    aborted: int = Field(description="The client went away.")
    refused: int = Field(description="Never reached an engine.")


class BackendMetrics(BaseModel):
    """Gauges of now, and counters since the backend's model was loaded."""

    name: str
    model: str
    state: BackendState
    inflight: int
    requests: int = Field(description="Calls that were ever sent there.")
    failures: int = Field(description="Of those; a client's mistake or abort is none.")
    success_rate: float | None = Field(description="Of the calls that succeeded or failed, 0 to 1.")
    avg_response_time: float | None = Field(description="Seconds to the last byte, of late.")
    running: int
    waiting: int
    kv_used: int = Field(description="Tokens.")
    kv_total: int = Field(description="Tokens.")
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    preemptions: int


class SystemMetrics(BaseModel):
    uptime_seconds: float
    requests: RequestCounts
    tokens_per_second: float = Field(description="Generated, over the last 60 seconds.")
    time_to_first_token: Latency
    inter_token_latency: Latency
    requests_running: int = Field(description="Sequences being computed.")
    requests_waiting: int = Field(description="Sequences waiting in an engine.")
    queue_depth: int = Field(description="Requests waiting for a backend.")
    kv_cache_usage: float = Field(description="Share of all KV caches in use, 0 to 1.")
    prompt_tokens: int
    completion_tokens: int
    cached_prompt_tokens: int
    prefix_cache_hit_rate: float | None = Field(
        description="Share of prompt tokens that were cached, 0 to 1."
    )
    cpu_percent: float = Field(description="Of this process; 100 is one core. Since this was last asked.")
    memory_mb: float = Field(description="Resident memory of this process, in MiB.")
    backends: list[BackendMetrics]
