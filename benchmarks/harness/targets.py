"""What has to be reached. Fixed before measuring: a miss is reported, no target follows a result."""

from __future__ import annotations

from benchmarks.harness.report import Goal

# By scenario and metric. What is not here is reported without a verdict.
_TARGETS = {
    ("throughput", "tokens_per_s"): Goal("ratio", 1.0),
    ("shared-prefix", "requests_per_s"): Goal("ratio", 2.0),
    ("interference", "slowdown_p99"): Goal("value", 3.0),
    ("structured", "schema_tokens_per_s"): Goal("ratio", 1.0),
    ("structured", "schema_by_free"): Goal("value", 0.9),
    ("structured", "neighbour_by_free"): Goal("value", 0.95),
    ("edge", "own_us_per_token"): Goal("value", 15.0),
    ("edge", "own_ms_per_request"): Goal("value", 0.5),
    ("dialects", "responses_by_chat"): Goal("value", 1.3),
    ("dialects", "messages_by_chat"): Goal("value", 1.3),
    ("drafting, copying, 1 connection", "draft_gain"): Goal("value", 1.2),
    ("drafting, ordinary, 1 connection", "draft_gain"): Goal("value", 0.98),  # no loss, within the noise
    ("drafting, copying, 8 connections", "draft_gain"): Goal("value", 0.98),
    ("drafting, ordinary, 8 connections", "draft_gain"): Goal("value", 0.98),
    ("memory", "used_extra_mib"): Goal("value", 250.0 / 1.048576),  # 250 MB
    ("memory", "second_extra_of_file"): Goal("value", 0.5),  # a second copy of the weights would be 1
    ("mlx", "tokens_per_s"): Goal("ratio", 1.0),
    ("vllm", "tokens_per_s"): Goal("ratio", 1.0),
    ("embeddings", "texts_per_s"): Goal("ratio", 1.0),
    ("switch", "ttft_p50_ms"): Goal("ratio", 0.5),
    ("relaying beside vllm-router", "json_1_ms"): Goal("ratio", 4.0),
    ("relaying beside vllm-router", "json_32_ms"): Goal("ratio", 4.0),
    ("relaying beside vllm-router", "stream_32_ms"): Goal("ratio", 1.5),
    ("relaying beside vllm-router", "slow_stream_32_ms"): Goal("ratio", 1.5),
    ("relaying beside litellm", "json_1_ms"): Goal("ratio", 1 / 30),
    ("relaying beside litellm", "json_32_ms"): Goal("ratio", 1 / 30),
    ("relaying beside litellm", "stream_32_ms"): Goal("ratio", 1 / 30),
    ("relaying beside litellm", "slow_stream_32_ms"): Goal("ratio", 1 / 30),
    ("held streams", "kb_per_stream"): Goal("value", 60.0),
    ("slots", "three_by_one"): Goal("value", 1.15),
    ("policies", "choice_us"): Goal("value", 20.0),
    ("attack", "bodies_ms"): Goal("value", 50.0),
    ("attack", "silent_ms"): Goal("value", 50.0),
    ("attack", "headers_ms"): Goal("value", 50.0),
    ("attack", "readers_ms"): Goal("value", 50.0),
    ("attack", "tokens_ms"): Goal("value", 50.0),
    ("attack", "place_s"): Goal("value", 10.0),
    ("attack", "grown_mib"): Goal("value", 256.0),
}


def target(scenario: str, metric: str) -> Goal | None:
    return _TARGETS.get((scenario, metric))
