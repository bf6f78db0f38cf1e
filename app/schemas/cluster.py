"""The cluster's status: instances, upstreams, and what balances calls over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field

from app.cluster import Cluster
from app.settings import Settings
from balancer.backends.base import BackendState, BackendStatus
from balancer.health.breaker import BreakerState
from balancer.instances import InstanceKind
from balancer.policies import Strategy
from balancer.scaling import Scaling

Number = int | float


class _Fares(BaseModel):
    """Figures of a backend."""

    weight: Number = Field(description="Its share of the calls relative to others.")
    is_running: bool = Field(description="Whether it is ready to serve.")
    state: BackendState
    inflight: int = Field(description="Calls that were sent there and have not ended.")
    requests: int = Field(description="Calls that were ever sent there.")
    failures: int = Field(description="Of those; a client's mistake or abort is none.")
    success_rate: float | None = Field(description="Of the calls that succeeded or failed, 0 to 1.")
    avg_response_time: float | None = Field(description="Seconds to the last byte, of late.")
    ttft_ewma: float | None = Field(description="Seconds to the first token, peak-EWMA as of the last one.")
    breaker: BreakerState = Field(description="Only a closed one lets all calls through.")
    detail: str = Field(description="Why it is in this state, if there is a reason.")


class InstanceReport(_Fares):
    kind: InstanceKind = Field(description="local: an engine of this process. process: a child process.")
    model: str
    port: int | None = Field(description="Of a child process, on the loopback address.")
    pid: int | None = Field(description="Of a child process.")
    cpu_percent: float | None = Field(
        description="Of a child process; 100 is one core. null: not known apart from the server's."
    )
    memory_mb: float | None = Field(
        description="MiB: of a child process what is resident, else what the engine takes."
    )
    progress: float = Field(description="Of loading, 0 to 1.")
    restarts: int = Field(description="Times it was started again because it crashed or hung.")

    @classmethod
    def of(cls, status: BackendStatus) -> InstanceReport:
        return cls(
            **_fares(status),
            kind=InstanceKind(status.kind),
            model=status.model,
            port=status.port,
            pid=status.pid,
            cpu_percent=status.cpu_percent,
            memory_mb=status.memory_mb,
            progress=status.progress,
            restarts=status.restarts,
        )


class UpstreamReport(_Fares):
    url: str
    models: list[str] = Field(description="By the names that requests use.")

    @classmethod
    def of(cls, status: BackendStatus) -> UpstreamReport:
        return cls(**_fares(status), url=status.url or "", models=list(status.models))


class DecisionReport(BaseModel):
    seconds_ago: float
    model: str
    instances: int = Field(description="How many there were to be.")
    reason: str

    @classmethod
    def list_of(cls, scaling: Scaling, models: Sequence[str]) -> list[DecisionReport]:
        """The last decisions for ``models``, newest first."""
        decisions = [
            cls(seconds_ago=ago, model=model, instances=decision.instances, reason=decision.reason)
            for model in models
            for ago, decision in scaling.history(model)
        ]
        return sorted(decisions, key=lambda decision: decision.seconds_ago)


class ScalingReport(BaseModel):
    enabled: bool
    min_instances: int
    max_instances: int
    target: int = Field(description="Calls for each instance that it aims at, running and waiting.")
    ongoing: dict[str, int] = Field(description="Calls by model, running and waiting.")
    decisions: list[DecisionReport] = Field(description="The last ones, newest first.")

    @classmethod
    def of(cls, cluster: Cluster, settings: Settings) -> ScalingReport:
        models, scaling = cluster.fleet.models(), cluster.scaling
        return cls(
            enabled=scaling is not None,
            min_instances=settings.min_instances,
            max_instances=settings.max_instances,
            target=settings.scale_target,
            ongoing={model: cluster.balancer.ongoing(model) for model in models},
            decisions=[] if scaling is None else DecisionReport.list_of(scaling, models),
        )


class FailoverCounts(BaseModel):
    """Since the start."""

    retried: int = Field(description="Calls sent to another backend before an answer began.")
    resumed: int = Field(description="Answers that broke off and went on at another backend.")
    broken: int = Field(description="Answers that broke off for good.")

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> FailoverCounts:
        return cls(
            retried=counts.get("retried", 0),
            resumed=counts.get("resumed", 0),
            broken=counts.get("broken", 0),
        )


class ClusterStatus(BaseModel):
    is_running: bool = Field(description="Whether an instance or an upstream is ready.")
    total_instances: int
    running_instances: int
    load_balancer_strategy: Strategy
    instances: dict[str, InstanceReport] = Field(description="By id.")
    upstreams: dict[str, UpstreamReport] = Field(description="By name.")
    auto_scaling: ScalingReport
    queue_depth: int = Field(description="Calls that wait for a backend.")
    failovers: FailoverCounts

    @classmethod
    def of(cls, cluster: Cluster, settings: Settings) -> ClusterStatus:
        statuses = cluster.fleet.statuses()
        instances = {each.name: InstanceReport.of(each) for each in statuses if each.url is None}
        upstreams = {each.name: UpstreamReport.of(each) for each in statuses if each.url is not None}
        running = sum(each.is_running for each in instances.values())
        return cls(
            is_running=running > 0 or any(each.is_running for each in upstreams.values()),
            total_instances=len(instances),
            running_instances=running,
            load_balancer_strategy=cluster.fleet.strategy,
            instances=instances,
            upstreams=upstreams,
            auto_scaling=ScalingReport.of(cluster, settings),
            queue_depth=cluster.balancer.queue_depth,
            failovers=FailoverCounts.of(cluster.failovers.counts),
        )


def _fares(status: BackendStatus) -> dict[str, Any]:
    return {
        "weight": _number(status.weight),
        "is_running": status.state is BackendState.READY,
        **{name: getattr(status, name) for name in _COPIED},
    }


_COPIED: Sequence[str] = (
    "state",
    "inflight",
    "requests",
    "failures",
    "success_rate",
    "avg_response_time",
    "ttft_ewma",
    "breaker",
    "detail",
)


def _number(value: float) -> Number:
    return int(value) if value.is_integer() else value
