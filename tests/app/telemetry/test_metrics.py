from __future__ import annotations

import psutil
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from app.telemetry.collector import ProcessFallback
from app.telemetry.metrics import MAX_MODELS, Metrics
from balancer.backends.base import BackendState, BackendStatus
from engines.base import EngineStats, Usage
from support.clock import Clock

STATS = EngineStats(running=3, waiting=2, kv_used=25, kv_total=100, preemptions=4, completion_tokens=9)
READY = BackendStatus("slot-0", "local", ("m",), BackendState.READY, inflight=5, stats=STATS)
LOADING = BackendStatus("slot-1", "local", ("m",), BackendState.STARTING)


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def metrics(clock: Clock) -> Metrics:
    return Metrics(lambda: [READY, LOADING], lambda: 6, clock)


def samples(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    """Values by name and label values (in the order of the labels' names), as Prometheus reads them."""
    found = {}
    for family in parse(metrics.render()[0].decode()):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found[sample.name, labels] = sample.value
    return found


def test_requests_and_tokens_are_counted(metrics: Metrics) -> None:
    model = metrics.for_model("m")
    model.finished("chat", "finished", 1.0, Usage(100, 20, 60))
    model.finished("chat", "finished", 3.0, Usage(10, 5))
    model.finished("chat", "aborted", 0.1, Usage(7, 1))
    model.finished("completions", "refused", 0.0)
    found = samples(metrics)
    assert found["enginehouse_requests_total", ("chat", "m", "finished")] == 2
    assert found["enginehouse_requests_total", ("chat", "m", "aborted")] == 1
    assert found["enginehouse_requests_total", ("completions", "m", "refused")] == 1
    assert found["enginehouse_prompt_tokens_total", ("m",)] == 117
    assert found["enginehouse_completion_tokens_total", ("m",)] == 26
    assert found["enginehouse_cached_prompt_tokens_total", ("m",)] == 60


def test_only_finished_requests_count_for_the_duration(metrics: Metrics) -> None:
    model = metrics.for_model("m")
    model.finished("chat", "finished", 3.0)
    model.finished("chat", "error", 0.1)
    found = samples(metrics)
    assert found["enginehouse_request_duration_seconds_count", ("chat", "m")] == 1
    assert found["enginehouse_request_duration_seconds_sum", ("chat", "m")] == 3.0
    assert found["enginehouse_request_duration_seconds_bucket", ("chat", "2.0", "m")] == 0
    assert found["enginehouse_request_duration_seconds_bucket", ("chat", "4.0", "m")] == 1
    assert found["enginehouse_request_duration_seconds_bucket", ("chat", "+Inf", "m")] == 1


def test_latencies_are_histograms_by_model(metrics: Metrics) -> None:
    metrics.for_model("m").first_token(0.3)
    metrics.for_model("m").inter_token(0.012)
    metrics.for_model("other").inter_token(9)
    found = samples(metrics)
    assert found["enginehouse_time_to_first_token_seconds_bucket", ("0.2", "m")] == 0
    assert found["enginehouse_time_to_first_token_seconds_bucket", ("0.35", "m")] == 1
    assert found["enginehouse_inter_token_latency_seconds_bucket", ("0.01", "m")] == 0
    assert found["enginehouse_inter_token_latency_seconds_bucket", ("0.015", "m")] == 1
    assert found["enginehouse_inter_token_latency_seconds_bucket", ("2.5", "other")] == 0
    assert found["enginehouse_inter_token_latency_seconds_bucket", ("+Inf", "other")] == 1


def test_tokens_that_come_at_once_share_their_time(metrics: Metrics) -> None:
    metrics.for_model("m").inter_token(0.4, tokens=4)
    metrics.for_model("m").inter_token(0.4, tokens=0)
    found = samples(metrics)
    assert found["enginehouse_inter_token_latency_seconds_count", ("m",)] == 4
    assert found["enginehouse_inter_token_latency_seconds_sum", ("m",)] == pytest.approx(0.4)
    assert found["enginehouse_inter_token_latency_seconds_bucket", ("0.075", "m")] == 0
    assert found["enginehouse_inter_token_latency_seconds_bucket", ("0.1", "m")] == 4


def test_backends_are_asked_when_scraped(metrics: Metrics) -> None:
    found = samples(metrics)
    assert found["enginehouse_backend_up", ("slot-0", "m")] == 1
    assert found["enginehouse_backend_up", ("slot-1", "m")] == 0
    assert found["enginehouse_requests_running", ("slot-0", "m")] == 3
    assert found["enginehouse_requests_waiting", ("slot-0", "m")] == 2
    assert found["enginehouse_kv_cache_usage_ratio", ("slot-0", "m")] == 0.25
    assert found["enginehouse_kv_cache_usage_ratio", ("slot-1", "m")] == 0
    assert found["enginehouse_preemptions_total", ("slot-0", "m")] == 4
    assert found["enginehouse_queue_depth", ()] == 6


def test_the_process_is_measured(metrics: Metrics) -> None:
    found = samples(metrics)
    assert found["process_resident_memory_bytes", ()] > 2**20
    assert found["process_cpu_seconds_total", ()] > 0


def test_the_process_is_measured_without_proc() -> None:
    registry = CollectorRegistry()
    registry.register(ProcessFallback())
    resident = registry.get_sample_value("process_resident_memory_bytes")
    assert resident == pytest.approx(psutil.Process().memory_info().rss, rel=0.5)
    assert (registry.get_sample_value("process_cpu_seconds_total") or 0) > 0


def test_two_apps_in_one_process_do_not_clash(metrics: Metrics) -> None:
    other = Metrics(list, lambda: 0)
    metrics.for_model("m").finished("chat", "finished", 1.0)
    assert ("enginehouse_requests_total", ("chat", "m", "finished")) not in samples(other)


def test_nobody_is_asked_before_the_first_scrape() -> None:
    def unknown() -> list[BackendStatus]:
        raise AssertionError("there is no balancer yet")

    Metrics(unknown, lambda: 0)


def test_openmetrics_is_served_to_who_asks(metrics: Metrics) -> None:
    metrics.for_model('we"ird\nname\\').finished("chat", "finished", 1.0)
    body, content_type = metrics.render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    names = {family.name for family in parse_openmetrics(body.decode())}  # type: ignore[no-untyped-call]
    assert {"enginehouse_requests", "enginehouse_inter_token_latency_seconds"} <= names
    assert metrics.render("*/*")[1].startswith("text/plain")


def test_one_object_serves_a_model(metrics: Metrics) -> None:
    assert metrics.for_model("m") is metrics.for_model("m")


def test_endless_names_end_in_one_series(metrics: Metrics) -> None:
    for number in range(MAX_MODELS + 50):
        metrics.for_model(f"made up {number}").finished("chat", "refused", 0)
    assert len(list(metrics.models())) == MAX_MODELS + 1
    assert samples(metrics)["enginehouse_requests_total", ("chat", "_other", "refused")] == 50


def test_a_snapshot_of_nothing(clock: Clock) -> None:
    snapshot = Metrics(list, lambda: 0, clock).snapshot()
    assert snapshot["requests"] == {"finished": 0, "error": 0, "aborted": 0, "refused": 0}
    assert snapshot["time_to_first_token"] == {"count": 0, "mean": None, "p50": None, "p95": None}
    assert snapshot["prefix_cache_hit_rate"] is None
    assert snapshot["kv_cache_usage"] == 0
    assert snapshot["tokens_per_second"] == 0


def test_a_snapshot_sums_up(metrics: Metrics, clock: Clock) -> None:
    for name in ("m", "n"):
        model = metrics.for_model(name)
        model.first_token(0.15)
        model.inter_token(0.01, tokens=1)
        model.finished("chat", "finished", 1.0, Usage(100, 2, 25))
    metrics.for_model("m").finished("chat", "error", 1.0)
    clock.now += 1
    snapshot = metrics.snapshot()
    assert snapshot["uptime_seconds"] == 1
    assert snapshot["requests"] == {"finished": 2, "error": 1, "aborted": 0, "refused": 0}
    assert snapshot["tokens_per_second"] == 2
    assert snapshot["time_to_first_token"]["count"] == 2
    assert snapshot["time_to_first_token"]["mean"] == pytest.approx(0.15)
    assert 0.1 < snapshot["time_to_first_token"]["p50"] <= snapshot["time_to_first_token"]["p95"] <= 0.2
    assert snapshot["inter_token_latency"]["mean"] == pytest.approx(0.01)
    assert (snapshot["requests_running"], snapshot["requests_waiting"], snapshot["queue_depth"]) == (3, 2, 6)
    assert snapshot["kv_cache_usage"] == 0.25
    assert (snapshot["prompt_tokens"], snapshot["completion_tokens"]) == (200, 4)
    assert snapshot["prefix_cache_hit_rate"] == 0.25
    assert snapshot["memory_mb"] > 1
    assert [each["name"] for each in snapshot["backends"]] == ["slot-0", "slot-1"]
    assert snapshot["backends"][0]["preemptions"] == 4
