"""A case: some lines of the table, and the servers that are measured for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.harness.report import SUBJECT, Better, Metric
from benchmarks.harness.servers import Bench
from benchmarks.harness.targets import target

Values = dict[str, float]
Run = Callable[[], Values]


@dataclass(frozen=True, slots=True)
class Case:
    """``runs`` measure by server, ours under `SUBJECT`. The first metric chooses among several peers."""

    name: str
    metrics: Sequence[Metric]
    runs: Mapping[str, Run]


def beside_llama_server(bench: Bench, measure: Callable[[int | None], Values]) -> dict[str, Run]:
    """Runs for the servers of `Bench.kinds`; ``measure`` is told which."""

    def run(kind: int | None) -> Run:
        return lambda: measure(kind)

    return {SUBJECT if kind is None else f"-t {kind}": run(kind) for kind in bench.kinds()}


_TITLES: dict[str, tuple[str, str, Better]] = {
    "tokens_per_s": ("tokens a second", "", "higher"),
    "plain_per_s": ("the same without drafts", "", "higher"),
    "draft_gain": ("with drafts by without", "", "higher"),
    "draft_cpu": ("server CPU a token, with drafts by without", "", "lower"),
    "accepted_share": ("share of drafted tokens that came true", "", "higher"),
    "requests_per_s": ("requests a second", "", "higher"),
    "texts_per_s": ("texts a second", "", "higher"),
    "request_p50_ms": ("a request, median", "ms", "lower"),
    "ttft_p50_ms": ("time to first token, median", "ms", "lower"),
    "ttft_p90_ms": ("time to first token, p90", "ms", "lower"),
    "itl_p50_ms": ("between tokens, median", "ms", "lower"),
    "itl_p99_ms": ("between tokens, p99", "ms", "lower"),
    "tokens_per_answer": ("tokens an answer", "", "higher"),
    "cpu_us_per_token": ("server CPU a token, all in", "µs", "lower"),
    "cpu_ms_per_request": ("server CPU a request, all in", "ms", "lower"),
    "own_us_per_token": ("server CPU for one more token", "µs", "lower"),
    "own_ms_per_request": ("server CPU for one more request, without tokens", "ms", "lower"),
    "frames_per_token": ("text frames a token", "", "higher"),
    "cpu_us_per_frame": ("server CPU a text frame, all in", "µs", "lower"),
    "chat_us_per_token": ("server CPU a token of a chat", "µs", "lower"),
    "responses_us_per_token": ("server CPU a token of a response that is not stored", "µs", "lower"),
    "stored_us_per_token": ("server CPU a token of a stored response", "µs", "lower"),
    "messages_us_per_token": ("server CPU a token of a message", "µs", "lower"),
    "responses_by_chat": ("a response by a chat", "", "lower"),
    "stored_by_chat": ("a stored response by a chat", "", "lower"),
    "messages_by_chat": ("a message by a chat", "", "lower"),
    "busy_p99_ms": ("between tokens during prefill, p99", "ms", "lower"),
    "busy_p50_ms": ("between tokens during prefill, median", "ms", "lower"),
    "busy_p100_ms": ("between tokens during prefill, longest", "ms", "lower"),
    "quiet_p99_ms": ("between tokens in quiet, p99", "ms", "lower"),
    "quiet_p50_ms": ("between tokens in quiet, median", "ms", "lower"),
    "slowdown_p99": ("p99 during prefill by p99 in quiet", "", "lower"),
    "slowdown_p50": ("median during prefill by median in quiet", "", "lower"),
    "long_ttft_ms": ("time to first token of the long prompt", "ms", "lower"),
    "schema_tokens_per_s": ("tokens a second, all answers with a schema", "", "higher"),
    "free_tokens_per_s": ("tokens a second, none with a schema", "", "higher"),
    "schema_by_free": ("tokens a second with a schema by without", "", "higher"),
    "neighbour_by_free": ("speed of an answer beside those with a schema by without any", "", "higher"),
    "loaded_mib": ("resident after loading", "MiB", "lower"),
    "used_mib": ("resident after 8 connections", "MiB", "lower"),
    "loaded_extra_mib": ("after loading, beyond model file and KV cache", "MiB", "lower"),
    "used_extra_mib": ("after 8 connections, beyond model file and KV cache", "MiB", "lower"),
    "kv_mib": ("KV cache", "MiB", "lower"),
    "first_mib": ("growth with the first engine", "MiB", "lower"),
    "second_mib": ("growth with the second engine", "MiB", "lower"),
    "second_extra_mib": ("growth with the second engine, beyond its KV cache", "MiB", "lower"),
    "second_extra_of_file": ("the same as a part of the model file", "", "lower"),
    "json_1_ms": ("proxy CPU a JSON answer, 1 connection", "ms", "lower"),
    "json_32_ms": ("proxy CPU a JSON answer, 32 connections", "ms", "lower"),
    "stream_32_ms": ("proxy CPU a stream of 64 chunks, 32 connections", "ms", "lower"),
    "slow_stream_32_ms": ("the same, chunks 20 ms apart", "ms", "lower"),
    "kb_per_stream": ("memory for each stream", "kB", "lower"),
    "held_mib": ("memory of the server with all streams", "MiB", "lower"),
    "bodies_ms": ("longest wait of others beside bodies of 10 MB", "ms", "lower"),
    "silent_ms": ("the same beside 1,000 silent connections", "ms", "lower"),
    "headers_ms": ("the same beside headers of 200 MiB", "ms", "lower"),
    "readers_ms": ("the same beside readers that do not read", "ms", "lower"),
    "idle_ms": ("the same beside nothing", "ms", "lower"),
    "place_s": ("a place while nobody reads 20 answers of 6 MB, after", "s", "lower"),
    "grown_mib": ("memory beyond that at rest", "MiB", "lower"),
    "tokens_ms": ("longest wait of others beside 200 kB of special tokens", "ms", "lower"),
    "tokens_answer_s": ("the answer to them, after", "s", "lower"),
    "three_by_one": ("three slots by one, both without their KV caches", "", "lower"),
    "three_mib": ("memory with three slots", "MiB", "lower"),
    "one_mib": ("memory with one slot", "MiB", "lower"),
    "first_load_s": ("first load of the process", "s", "lower"),
    "load_s": ("load", "s", "lower"),
    "unload_s": ("unload", "s", "lower"),
    "first_answer_s": ("short chat after a load", "s", "lower"),
}


def metrics(scenario: str, keys: Sequence[str]) -> list[Metric]:
    """The lines for these values of a measurement, with the targets of ``scenario``."""
    return [Metric(key, *_TITLES[key], target(scenario, key)) for key in keys]
