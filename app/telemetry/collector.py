"""The metrics in Prometheus' terms, gathered when somebody scrapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from app.telemetry.instruments import Histogram
from app.telemetry.log_writer import dropped_lines
from app.telemetry.model_metrics import ModelMetrics
from balancer.backends.base import BackendState, BackendStatus
from engines.base import EngineStats

# Counters are named without their suffix: the exposition adds _total.
_REQUESTS = ("enginehouse_requests", "Requests that ended, by outcome.")
_PROMPT = ("enginehouse_prompt_tokens", "Prompt tokens of ended requests.")
_COMPLETION = ("enginehouse_completion_tokens", "Generated tokens of ended requests.")
_CACHED = ("enginehouse_cached_prompt_tokens", "Prompt tokens that the prefix cache held.")
_PREEMPTIONS = ("enginehouse_preemptions", "Sequences put back because the KV cache was full.")
_DURATION = (
    "enginehouse_request_duration_seconds",
    "From a request's arrival to its last byte, of finished requests.",
)
_TTFT = ("enginehouse_time_to_first_token_seconds", "From a request's arrival to its first token.")
_ITL = ("enginehouse_inter_token_latency_seconds", "Between two tokens of a request.")
_UP = ("enginehouse_backend_up", "1 if the backend is ready.")
_RUNNING = ("enginehouse_requests_running", "Sequences being computed.")
_WAITING = ("enginehouse_requests_waiting", "Sequences waiting in the engine.")
_KV_USAGE = ("enginehouse_kv_cache_usage_ratio", "Share of the KV cache in use, 0 to 1.")
_QUEUE_DEPTH = ("enginehouse_queue_depth", "Requests waiting in the balancer's queue.")
_LOG_LINES = ("enginehouse_log_lines_dropped", "Log lines that were not read fast enough, and dropped.")
_CPU = ("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.")
_MEMORY = ("process_resident_memory_bytes", "Resident memory size in bytes.")


# The label of a backend that serves several models, or that is not known to serve any yet.
SEVERAL_MODELS = "_several"


class MetricsCollector(Collector):
    """Reads the models' counts and the backends' statuses; holds no numbers of its own."""

    def __init__(
        self,
        models: Callable[[], Iterable[ModelMetrics]],
        statuses: Callable[[], Iterable[BackendStatus]],
        queue_depth: Callable[[], int],
    ) -> None:
        self._models = models
        self._statuses = statuses
        self._queue_depth = queue_depth

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not look at backends that may not exist yet."""
        return ()

    def collect(self) -> Iterator[Metric]:
        yield from _model_metrics(self._models())
        yield from _backend_metrics(self._statuses())
        yield GaugeMetricFamily(*_QUEUE_DEPTH, value=self._queue_depth())
        yield CounterMetricFamily(*_LOG_LINES, value=dropped_lines())


class ProcessFallback(Collector):
    """CPU and memory of this process where there is no /proc for prometheus_client to read."""

    def collect(self) -> Iterator[Metric]:
        process = psutil.Process()
        cpu = process.cpu_times()
        yield CounterMetricFamily(*_CPU, value=cpu.user + cpu.system)
        yield GaugeMetricFamily(*_MEMORY, value=process.memory_info().rss)


def _model_metrics(models: Iterable[ModelMetrics]) -> Iterator[Metric]:
    requests = CounterMetricFamily(*_REQUESTS, labels=["model", "endpoint", "outcome"])
    duration = HistogramMetricFamily(*_DURATION, labels=["model", "endpoint"])
    ttft = HistogramMetricFamily(*_TTFT, labels=["model"])
    itl = HistogramMetricFamily(*_ITL, labels=["model"])
    prompt = CounterMetricFamily(*_PROMPT, labels=["model"])
    completion = CounterMetricFamily(*_COMPLETION, labels=["model"])
    cached = CounterMetricFamily(*_CACHED, labels=["model"])
    for model in models:
        name = [model.model]
        for (endpoint, outcome), count in model.requests.items():
            requests.add_metric([*name, endpoint, outcome], count)
        for endpoint, histogram in model.durations.items():
            _add(duration, [*name, endpoint], histogram)
        _add(ttft, name, model.ttft)
        _add(itl, name, model.itl)
        prompt.add_metric(name, model.prompt_tokens)
        completion.add_metric(name, model.completion_tokens)
        cached.add_metric(name, model.cached_tokens)
    yield from (requests, duration, ttft, itl, prompt, completion, cached)


def _add(family: HistogramMetricFamily, labels: list[str], histogram: Histogram) -> None:
    buckets: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip((*histogram.bounds, math.inf), histogram.counts, strict=True):
        total += count
        buckets.append((str(float(bound)) if math.isfinite(bound) else "+Inf", total))
    family.add_metric(labels, buckets, histogram.sum)


def backend_labels(status: BackendStatus) -> list[str]:
    """The labels ``model`` and ``backend``. An upstream's models come and go: a series is not to."""
    model = status.models[0] if len(status.models) == 1 else SEVERAL_MODELS
    return [model, status.name]


def _backend_metrics(statuses: Iterable[BackendStatus]) -> Iterator[Metric]:
    labels = ["model", "backend"]
    up = GaugeMetricFamily(*_UP, labels=labels)
    running = GaugeMetricFamily(*_RUNNING, labels=labels)
    waiting = GaugeMetricFamily(*_WAITING, labels=labels)
    kv_usage = GaugeMetricFamily(*_KV_USAGE, labels=labels)
    preemptions = CounterMetricFamily(*_PREEMPTIONS, labels=labels)
    for status in statuses:
        name = backend_labels(status)
        stats = status.stats or EngineStats()
        up.add_metric(name, status.state is BackendState.READY)
        running.add_metric(name, stats.running)
        waiting.add_metric(name, stats.waiting)
        kv_usage.add_metric(name, stats.kv_used / stats.kv_total if stats.kv_total else 0.0)
        preemptions.add_metric(name, stats.preemptions)
    yield from (up, running, waiting, kv_usage, preemptions)
