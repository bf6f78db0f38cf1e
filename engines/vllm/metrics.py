"""Counters of vLLM's scheduler, which reports after every step."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any


class Counters:
    """The last step's gauges, and sums since the load. Read and written on the event loop's thread."""

    def __init__(self) -> None:
        self.running = 0
        self.waiting = 0
        self.kv_usage = 0.0  # 0..1; blocks that only the prefix cache holds are free
        self.steps = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.cached_tokens = 0
        self.preemptions = 0
        self.prefix_queries = 0
        self.prefix_hits = 0
        self.draft_tokens = 0
        self.accepted_tokens = 0
        self.last_progress = time.monotonic()

    def record(self, scheduler: Any, iteration: Any) -> None:
        """Take ``SchedulerStats`` and ``IterationStats`` of one step; either may be None."""
        self.last_progress = time.monotonic()
        if scheduler is not None:
            self.running = scheduler.num_running_reqs
            self.waiting = scheduler.num_waiting_reqs + getattr(scheduler, "num_skipped_waiting_reqs", 0)
            self.kv_usage = scheduler.kv_cache_usage
            self.prefix_queries += scheduler.prefix_cache_stats.queries
            self.prefix_hits += scheduler.prefix_cache_stats.hits
            if scheduler.spec_decoding_stats is not None:
                self.draft_tokens += scheduler.spec_decoding_stats.num_draft_tokens
                self.accepted_tokens += scheduler.spec_decoding_stats.num_accepted_tokens
        if iteration is not None:
            self.steps += 1
            self.prompt_tokens += iteration.num_prompt_tokens
            self.completion_tokens += iteration.num_generation_tokens
            self.cached_tokens += iteration.prompt_token_stats.cached_tokens
            self.preemptions += iteration.num_preempted_reqs

    def as_metrics(self) -> Mapping[str, float]:
        """Names end in ``_total`` where the value only grows.

        ``prefix_queries`` and ``prefix_hits`` count prompt tokens looked up and found in the prefix
        cache; ``draft`` and ``accepted`` tokens are speculative decoding's; ``kv_usage`` is 0..1.
        """
        return {
            "running": self.running,
            "waiting": self.waiting,
            "kv_usage": self.kv_usage,
            "steps_total": self.steps,
            "preemptions_total": self.preemptions,
            "prefix_queries_total": self.prefix_queries,
            "prefix_hits_total": self.prefix_hits,
            "draft_tokens_total": self.draft_tokens,
            "accepted_tokens_total": self.accepted_tokens,
        }


def stat_logger(counters: Counters) -> type[Any]:
    """A class of stat logger for vLLM that feeds ``counters``.

    vLLM adds its own Prometheus logger, which registers collectors for the whole process, unless it is
    given a subclass of it; this one registers nothing.
    """
    from vllm.v1.metrics.loggers import PrometheusStatLogger

    class CountingStatLogger(PrometheusStatLogger):  # type: ignore[misc]
        def __init__(self, vllm_config: Any, engine_indexes: Any = None) -> None:
            pass

        def record(
            self,
            scheduler_stats: Any,
            iteration_stats: Any,
            mm_cache_stats: Any = None,
            engine_idx: int = 0,
        ) -> None:
            counters.record(scheduler_stats, iteration_stats)

        def record_admission_rejection(self, reason: str) -> None:
            pass

        def record_sleep_state(self, sleep: int = 0, level: int = 0) -> None:
            pass

        def log_engine_initialized(self) -> None:
            pass

        def log(self) -> None:
            pass

    return CountingStatLogger
