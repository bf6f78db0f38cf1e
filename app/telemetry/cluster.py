"""The instances, the upstreams and what balances over them, in Prometheus' terms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from app.telemetry.collector import backend_labels
from balancer.backends.base import BackendStatus

if TYPE_CHECKING:
    from balancer.dispatch import Failovers
    from balancer.scaling import Scaling

# Counters are named without their suffix: the exposition adds _total.
_COUNTERS: dict[str, tuple[str, str]] = {
    "requests": ("enginehouse_backend_requests", "Calls that were sent to the backend."),
    "successes": ("enginehouse_backend_successes", "Of those, the ones that it answered."),
    "failures": ("enginehouse_backend_failures", "Of those, the ones that it failed; aborts are neither."),
    "restarts": ("enginehouse_backend_restarts", "Times it was started again as it crashed or hung."),
}
_INFLIGHT = ("enginehouse_backend_inflight", "Calls that the backend serves.")
_TTFT = ("enginehouse_backend_ttft_seconds", "Time to the first token, peak-EWMA as of the last one.")
_ANSWER_TIME = ("enginehouse_backend_answer_seconds", "Time to the last byte, moving average.")
_CPU = ("enginehouse_backend_cpu_ratio", "CPU use of a child process; 1 is one core.")
_MEMORY = (
    "enginehouse_backend_memory_bytes",
    "Resident memory of a child process, or what an engine of this one takes.",
)
_BREAKER = ("enginehouse_backend_breaker_state", "1 for the state that the backend's breaker is in.")
_FAILOVERS = (
    "enginehouse_failovers",
    "Calls that were retried before their answer began, resumed in the middle of it, or broken off.",
)
_DESIRED = ("enginehouse_autoscaler_desired_instances", "Instances that the model's calls ask for now.")
_DECISIONS = ("enginehouse_autoscaler_decisions", "Changes of the number of a model's instances.")

# Shown from the start, so that a rate has a first value to go from.
_OUTCOMES = ("retried", "resumed", "broken")


class ClusterCollector(Collector):
    """Reads the fleet when somebody scrapes; holds no numbers of its own. No ``scaling``: it is off."""

    def __init__(
        self,
        statuses: Callable[[], Sequence[BackendStatus]],
        failovers: Failovers,
        scaling: Scaling | None,
    ) -> None:
        self._statuses = statuses
        self._failovers = failovers
        self._scaling = scaling

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not look at backends that may not exist yet."""
        return ()

    def collect(self) -> Iterator[Metric]:
        statuses = self._statuses()
        yield from _counters(statuses)
        yield from _gauges(statuses)
        failovers = CounterMetricFamily(*_FAILOVERS, labels=["outcome"])
        for outcome in _OUTCOMES:
            failovers.add_metric([outcome], self._failovers.counts[outcome])
        yield failovers
        if self._scaling is not None:
            yield from _autoscaling(self._scaling)


def _counters(statuses: Sequence[BackendStatus]) -> Iterator[Metric]:
    for field, (name, text) in _COUNTERS.items():
        family = CounterMetricFamily(name, text, labels=["model", "backend"])
        for status in statuses:
            family.add_metric(backend_labels(status), getattr(status, field))
        yield family


def _gauges(statuses: Sequence[BackendStatus]) -> Iterator[Metric]:
    labels = ["model", "backend"]
    inflight = GaugeMetricFamily(*_INFLIGHT, labels=labels)
    ttft = GaugeMetricFamily(*_TTFT, labels=labels)
    answer_time = GaugeMetricFamily(*_ANSWER_TIME, labels=labels)
    cpu = GaugeMetricFamily(*_CPU, labels=labels)
    memory = GaugeMetricFamily(*_MEMORY, labels=labels)
    breaker = GaugeMetricFamily(*_BREAKER, labels=[*labels, "state"])
    for status in statuses:
        name = backend_labels(status)
        inflight.add_metric(name, status.inflight)
        _add(ttft, name, status.ttft_ewma)
        _add(answer_time, name, status.avg_response_time)
        _add(cpu, name, status.cpu_percent, 0.01)
        _add(memory, name, status.memory_mb, 2**20)
        breaker.add_metric([*name, status.breaker], 1)
    yield from (inflight, ttft, answer_time, cpu, memory, breaker)


def _add(family: GaugeMetricFamily, labels: list[str], value: float | None, unit: float = 1.0) -> None:
    """What is not known has no sample."""
    if value is not None:
        family.add_metric(labels, value * unit)


def _autoscaling(scaling: Scaling) -> Iterator[Metric]:
    desired = GaugeMetricFamily(*_DESIRED, labels=["model"])
    for model, instances in scaling.desired().items():
        desired.add_metric([model], instances)
    decisions = CounterMetricFamily(*_DECISIONS, labels=["model", "direction"])
    for labels, count in scaling.counts.items():
        decisions.add_metric(labels, count)
    yield from (desired, decisions)
