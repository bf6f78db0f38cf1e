from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse

from app.telemetry.cluster import ClusterCollector
from app.telemetry.collector import backend_labels
from balancer.backends.base import BackendState, BackendStatus
from balancer.dispatch import Failovers

BUSY = BackendStatus(
    name="instance_0",
    kind="process",
    models=("m",),
    state=BackendState.READY,
    inflight=3,
    requests=10,
    successes=5,
    failures=1,
    avg_response_time=2.5,
    ttft_ewma=0.25,
    breaker="half_open",
    cpu_percent=150.0,
    memory_mb=2.0,
    restarts=4,
)
FRESH = BackendStatus("instance_1", "local", ("m",), BackendState.STARTING)
REMOTE = BackendStatus("gpu1:8000", "remote", ("a", "b"), BackendState.READY, url="http://gpu1:8000/v1")


def registry_of(*statuses: BackendStatus, failovers: Failovers | None = None) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(ClusterCollector(lambda: statuses, failovers or Failovers(), None))
    return registry


def value(registry: CollectorRegistry, name: str, backend: str = "instance_0", **labels: str) -> float | None:
    found = {"model": "m", "backend": backend, **labels}
    return registry.get_sample_value(f"enginehouse_backend_{name}", found)


def test_an_instance_in_figures() -> None:
    registry = registry_of(BUSY)
    assert value(registry, "requests_total") == 10
    assert value(registry, "successes_total") == 5
    assert value(registry, "failures_total") == 1
    assert value(registry, "restarts_total") == 4
    assert value(registry, "inflight") == 3
    assert value(registry, "ttft_seconds") == 0.25
    assert value(registry, "answer_seconds") == 2.5
    assert value(registry, "cpu_ratio") == 1.5
    assert value(registry, "memory_bytes") == 2 * 2**20
    assert value(registry, "breaker_state", state="half_open") == 1
    assert value(registry, "breaker_state", state="closed") is None


def test_what_is_not_known_has_no_sample() -> None:
    registry = registry_of(FRESH)
    assert value(registry, "requests_total", "instance_1") == 0
    for name in ("ttft_seconds", "answer_seconds", "cpu_ratio", "memory_bytes"):
        assert value(registry, name, "instance_1") is None


def test_a_series_does_not_change_with_an_upstreams_models() -> None:
    assert backend_labels(FRESH) == ["m", "instance_1"]
    assert backend_labels(REMOTE) == ["_several", "gpu1:8000"]


def test_failovers_are_there_from_the_start() -> None:
    failovers = Failovers()
    registry = registry_of(failovers=failovers)
    failovers.counts["resumed"] += 2
    values = {
        outcome: registry.get_sample_value("enginehouse_failovers_total", {"outcome": outcome})
        for outcome in ("retried", "resumed", "broken")
    }
    assert values == {"retried": 0, "resumed": 2, "broken": 0}


def test_the_exposition_is_valid_openmetrics() -> None:
    text = generate_latest(registry_of(BUSY, FRESH, REMOTE)).decode()
    names = {family.name for family in parse(text)}  # type: ignore[no-untyped-call]
    assert {"enginehouse_backend_requests", "enginehouse_failovers"} <= names


def test_nobody_is_asked_before_the_first_scrape() -> None:
    def unknown() -> list[BackendStatus]:
        raise AssertionError("there are no backends yet")

    CollectorRegistry().register(ClusterCollector(unknown, Failovers(), None))
