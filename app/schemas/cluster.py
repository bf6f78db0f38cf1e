"""What the cluster routes take and answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator

from app.schemas.common import WireModel
from balancer.backends.base import BackendState, BackendStatus
from balancer.health.breaker import BreakerState
from balancer.instances import InstanceKind
from balancer.policies import Strategy
from balancer.proxy.headers import is_sendable
from engines.models.catalog import check_name

# Instances of one model, whoever asks for them: what CLUSTER_INSTANCES allows.
MOST_INSTANCES = 100
MAX_URL = 2048

Number = int | float


class _Fares(BaseModel):
    """How a backend fares."""

    weight: Number = Field(description="Its share of the calls relative to others.")
    is_running: bool = Field(description="Whether it is ready to serve.")
    state: BackendState
    inflight: int = Field(description="Calls that were sent there and have not ended.")
    requests: int = Field(description="Calls that were ever sent there.")
    failures: int = Field(description="Of those; a client's mistake or abort is none.")
    success_rate: float | None = Field(description="Of the calls that succeeded or failed, 0 to 1.")
    avg_response_time: float | None = Field(description="Seconds to the last byte, of late.")
    ttft_ewma: float | None = Field(description="Seconds to the first token, peak-EWMA.")
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


class ScalingReport(BaseModel):
    enabled: bool
    min_instances: int
    max_instances: int
    target: int = Field(description="Calls for each instance that it aims at, running and waiting.")
    ongoing: dict[str, int] = Field(description="Calls by model, running and waiting.")
    decisions: list[DecisionReport] = Field(description="The last ones, newest first.")


class FailoverCounts(BaseModel):
    """Since the start."""

    retried: int = Field(description="Calls sent to another backend before an answer began.")
    resumed: int = Field(description="Answers that broke off and went on at another backend.")
    broken: int = Field(description="Answers that broke off for good.")


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


class ScaleRequest(WireModel):
    action: Literal["scale_up", "scale_down"]
    count: int = Field(1, ge=1, le=MOST_INSTANCES, description="How many instances come or go.")
    model: Annotated[str, Field(min_length=1, max_length=1024)] | None = Field(
        None, description="Default: the model that is loaded at the start."
    )
    kind: Literal["local", "process"] | None = Field(
        None, description="Of the new ones. Default: INSTANCE_KIND's."
    )

    @model_validator(mode="after")
    def _kind_of_new_ones(self) -> Self:
        if self.kind is not None and self.action == "scale_down":
            raise ValueError("kind is for scale_up: what goes is chosen by its state")
        return self


class Scaled(BaseModel):
    message: str
    model: str
    total_instances: int = Field(description="Of the model, those on their way included.")
    instances: list[str] = Field(description="Their ids.")


class StrategyRequest(WireModel):
    strategy: Annotated[Strategy, Field(strict=False)]


class StrategySet(BaseModel):
    message: str
    load_balancer_strategy: Strategy


class RestartRequest(WireModel):
    instance_id: str = Field(description="Such as `instance_0`; `all`: one after the other.")
    wait: bool = Field(True, description="false: answer 202 at once.")


class RestartedInstance(BaseModel):
    instance_id: str
    seconds: float = Field(description="From the last call that it was sent until it was ready again.")


class Restarted(BaseModel):
    message: str
    restarted: list[RestartedInstance]


class RestartAccepted(BaseModel):
    """The restart goes on; `status_url` says how the instances do."""

    message: str
    instances: list[str]
    status_url: str


def _is_sendable(key: str) -> str:
    if not is_sendable(key):
        raise ValueError("the key has characters that a header cannot have")
    return key


def _address(url: str) -> str:
    if any(character in url for character in "?#@"):
        raise ValueError("give only the address: the key and the options are fields of their own")
    return url


def _same_names(value: object) -> object:
    """A list of names is short for names that both sides use."""
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return {name: name for name in value}
    return value


Name = Annotated[str, AfterValidator(check_name)]


class NewUpstream(WireModel):
    url: Annotated[str, Field(min_length=1, max_length=MAX_URL), AfterValidator(_address)] = Field(
        description="Base URL, such as `http://gpu1:8000/v1`."
    )
    name: Name | None = Field(None, description="Default: its host and port.")
    api_key: Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_is_sendable)] | None = (
        Field(None, repr=False, description="Sent to it as a Bearer key; never shown again.")
    )
    weight: float = Field(1.0, gt=0, description="Its share of the calls relative to other backends'.")
    models: Annotated[
        dict[Name, Name],
        BeforeValidator(_same_names, json_schema_input_type=dict[str, str] | list[str]),
    ] = Field({}, description="Our names and its own, or a list of names. Default: all that it lists.")
    max_concurrent: int | None = Field(None, ge=1, description="The most calls at once.")


class UpstreamAdded(BaseModel):
    message: str
    name: str
    upstream: UpstreamReport


class UpstreamRemoved(BaseModel):
    message: str
    name: str
    inflight: int = Field(description="Calls that still run there, and go on.")


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
