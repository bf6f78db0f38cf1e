"""What has to be reached. Fixed before measuring: a miss is reported, no target follows a result."""

from __future__ import annotations

from benchmarks.report import Target

# By scenario and metric. What is not here is reported without a verdict.
_TARGETS = {
    ("throughput", "tokens_per_s"): Target("ratio", 1.0),
    ("shared-prefix", "requests_per_s"): Target("ratio", 2.0),
    ("interference", "slowdown_p99"): Target("value", 3.0),
    ("edge", "own_us_per_token"): Target("value", 15.0),
    ("edge", "own_ms_per_request"): Target("value", 0.5),
    ("memory", "used_extra_mib"): Target("value", 250.0 / 1.048576),  # 250 MB
    ("memory", "second_extra_of_file"): Target("value", 0.5),  # a second copy of the weights would be 1
    ("mlx", "tokens_per_s"): Target("ratio", 1.0),
    ("vllm", "tokens_per_s"): Target("ratio", 1.0),
    ("switch", "ttft_p50_ms"): Target("ratio", 0.5),
}


def target(scenario: str, metric: str) -> Target | None:
    return _TARGETS.get((scenario, metric))
