from __future__ import annotations

from types import SimpleNamespace

from engines.vllm.metrics import Counters


def scheduler(**fields: object) -> SimpleNamespace:
    prefix = SimpleNamespace(queries=10, hits=4)
    values = {
        "num_running_reqs": 2,
        "num_waiting_reqs": 1,
        "kv_cache_usage": 0.25,
        "prefix_cache_stats": prefix,
        "spec_decoding_stats": None,
    }
    return SimpleNamespace(**values | fields)


def iteration() -> SimpleNamespace:
    cached = SimpleNamespace(cached_tokens=4)
    return SimpleNamespace(
        num_prompt_tokens=10, num_generation_tokens=3, num_preempted_reqs=1, prompt_token_stats=cached
    )


def test_gauges_are_the_last_steps_and_counters_add_up() -> None:
    counters = Counters()
    counters.record(scheduler(num_running_reqs=5), iteration())
    counters.record(scheduler(num_skipped_waiting_reqs=2), iteration())
    assert (counters.running, counters.waiting, counters.kv_usage) == (2, 3, 0.25)
    assert (counters.steps, counters.completion_tokens, counters.cached_tokens) == (2, 6, 8)
    assert counters.as_metrics()["prefix_hits_total"] == 8
    assert counters.as_metrics()["preemptions_total"] == 2


def test_either_half_may_be_missing() -> None:
    counters = Counters()
    counters.record(None, iteration())
    counters.record(scheduler(), None)
    assert (counters.steps, counters.running) == (1, 2)


def test_speculative_decoding_is_counted() -> None:
    counters = Counters()
    drafts = SimpleNamespace(num_draft_tokens=8, num_accepted_tokens=5)
    counters.record(scheduler(spec_decoding_stats=drafts), None)
    assert counters.as_metrics()["accepted_tokens_total"] == 5
