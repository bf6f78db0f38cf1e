"""Metrics of the server, for Prometheus and for ``GET /v1/system/metrics``."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import psutil
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

from app.inference.outcome import RequestOutcome
from app.telemetry.collector import MetricsCollector, ProcessFallback
from app.telemetry.instruments import Histogram, RecentRate, merged
from app.telemetry.model_metrics import ITL_BUCKETS, TTFT_BUCKETS, ModelMetrics
from balancer.backends.base import BackendStatus
from engines.base import EngineStats

# Clients choose the names in requests, so there must be an end to the series they can make.
MAX_MODELS = 256
OTHER_MODEL = "_other"


class Metrics:
    """All counts of one app, in a registry of its own, so that apps in one process do not clash.

    Everything runs on the event loop's thread. ``statuses`` and ``queue_depth`` are asked when somebody
    scrapes, and not before.
    """

    def __init__(
        self,
        statuses: Callable[[], Sequence[BackendStatus]],
        queue_depth: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.statuses = statuses
        self.queue_depth = queue_depth
        self.registry = CollectorRegistry()
        self.registry.register(MetricsCollector(self.models, statuses, queue_depth))
        if os.path.exists("/proc/stat"):
            ProcessCollector(registry=self.registry)
        else:
            self.registry.register(ProcessFallback())
        self._clock = clock
        self._started = clock()
        self._models: dict[str, ModelMetrics] = {}
        self._rate = RecentRate(clock)
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first call only sets the mark that the next one measures from

    def for_model(self, model: str) -> ModelMetrics:
        """The counts of ``model``; beyond `MAX_MODELS` names, all others share one set."""
        found = self._models.get(model)
        if found is None:
            if len(self._models) >= MAX_MODELS and model != OTHER_MODEL:
                return self.for_model(OTHER_MODEL)
            found = self._models[model] = ModelMetrics(model, self._rate)
        return found

    def __call__(self, outcome: RequestOutcome) -> None:
        """Count a request that ended: a sink of request outcomes."""
        self.for_model(outcome.target.model).finished(
            outcome.endpoint, outcome.status, outcome.duration, outcome.usage
        )

    def models(self) -> Iterable[ModelMetrics]:
        return self._models.values()

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The exposition for Prometheus and its content type, in the format that ``accept`` asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def snapshot(self) -> dict[str, Any]:
        """The same at a glance, as JSON; times in seconds, None where nothing was measured yet."""
        statuses = self.statuses()
        stats = [status.stats for status in statuses if status.stats is not None]
        kv_total = sum(each.kv_total for each in stats)
        return {
            "uptime_seconds": self._clock() - self._started,
            "requests": self._requests(),
            "tokens_per_second": self._rate.per_second(),
            "time_to_first_token": _latency(TTFT_BUCKETS, (model.ttft for model in self.models())),
            "inter_token_latency": _latency(ITL_BUCKETS, (model.itl for model in self.models())),
            "requests_running": sum(each.running for each in stats),
            "requests_waiting": sum(each.waiting for each in stats),
            "queue_depth": self.queue_depth(),
            "kv_cache_usage": sum(each.kv_used for each in stats) / kv_total if kv_total else 0.0,
            **self._tokens(),
            "cpu_percent": self._process.cpu_percent(),
            "memory_mb": self._process.memory_info().rss / 2**20,
            "backends": [_backend(status) for status in statuses],
        }

    def _requests(self) -> dict[str, int]:
        totals: Counter[str] = Counter({"finished": 0, "error": 0, "aborted": 0, "refused": 0})
        for model in self.models():
            for (_, outcome), count in model.requests.items():
                totals[outcome] += count
        return dict(totals)

    def _tokens(self) -> dict[str, float | int | None]:
        prompt = sum(model.prompt_tokens for model in self.models())
        cached = sum(model.cached_tokens for model in self.models())
        return {
            "prompt_tokens": prompt,
            "completion_tokens": sum(model.completion_tokens for model in self.models()),
            "cached_prompt_tokens": cached,
            "prefix_cache_hit_rate": cached / prompt if prompt else None,
        }


def _latency(bounds: Sequence[float], parts: Iterable[Histogram]) -> dict[str, float | int | None]:
    whole = merged(bounds, parts)
    p50, p95 = whole.quantile(0.5), whole.quantile(0.95)
    return {"count": whole.count, "mean": whole.mean, "p50": p50, "p95": p95}


def _backend(status: BackendStatus) -> dict[str, Any]:
    stats = status.stats or EngineStats()
    return {
        "name": status.name,
        "model": status.model,
        "state": status.state,
        "inflight": status.inflight,
        "requests": status.requests,
        "failures": status.failures,
        "success_rate": status.success_rate,
        "avg_response_time": status.avg_response_time,
        "running": stats.running,
        "waiting": stats.waiting,
        "kv_used": stats.kv_used,
        "kv_total": stats.kv_total,
        "prompt_tokens": stats.prompt_tokens,
        "completion_tokens": stats.completion_tokens,
        "cached_tokens": stats.cached_tokens,
        "preemptions": stats.preemptions,
    }
