"""What has to be reached. Fixed before measuring: a miss is reported, no target follows a result."""

from __future__ import annotations

from benchmarks.harness.report import Target

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
    ("relaying beside vllm-router", "json_1_ms"): Target("ratio", 4.0),
    ("relaying beside vllm-router", "json_32_ms"): Target("ratio", 4.0),
    ("relaying beside vllm-router", "stream_32_ms"): Target("ratio", 1.5),
    ("relaying beside vllm-router", "slow_stream_32_ms"): Target("ratio", 1.5),
    ("relaying beside litellm", "json_1_ms"): Target("ratio", 1 / 30),
    ("relaying beside litellm", "json_32_ms"): Target("ratio", 1 / 30),
    ("relaying beside litellm", "stream_32_ms"): Target("ratio", 1 / 30),
    ("relaying beside litellm", "slow_stream_32_ms"): Target("ratio", 1 / 30),
    ("held streams", "kb_per_stream"): Target("value", 60.0),
    ("slots", "three_by_one"): Target("value", 1.15),
    ("policies", "choice_us"): Target("value", 20.0),
}


def target(scenario: str, metric: str) -> Target | None:
    return _TARGETS.get((scenario, metric))
