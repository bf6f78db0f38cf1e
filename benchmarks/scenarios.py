"""What is measured: each scenario is a list of cases, each case a few lines of the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks import edge, interference, load_tool, memory
from benchmarks.load_tool import Load
from benchmarks.report import Better, Metric
from benchmarks.servers import Bench, Need, started, subject
from benchmarks.targets import target


@dataclass(frozen=True, slots=True)
class Case:
    """``run`` measures a server of one kind (see `Bench.kinds`). The first metric chooses the peer."""

    name: str
    metrics: Sequence[Metric]
    run: Callable[[Bench, int | None], dict[str, float]]
    with_peer: bool = True


def throughput(bench: Bench) -> list[Case]:
    metrics = ("tokens_per_s", "ttft_p50_ms", "itl_p50_ms", "itl_p99_ms", "cpu_us_per_token")
    cases = []
    for connections, requests in ((1, 8), (8, 24), (32, 64)):
        count = bench.count(requests, connections)
        load = Load(connections, count, bench.count(128, 16), ignore_eos=bench.ignore_eos)
        name = f"throughput, {connections} connection{'s' if connections > 1 else ''}"
        cases.append(_load_case("throughput", name, metrics, load))
        if connections > 1:
            own = Case(
                f"{name}, our defaults",
                _metrics("defaults", metrics),
                partial(_run_defaults, load),
                with_peer=False,
            )
            cases.append(own)
    return cases


def shared_prefix(bench: Bench) -> list[Case]:
    metrics = ("requests_per_s", "tokens_per_s", "ttft_p50_ms", "itl_p99_ms", "cpu_ms_per_request")
    load = Load(8, bench.count(24, 8), bench.count(32, 4), shared_prefix=True, ignore_eos=bench.ignore_eos)
    return [_load_case("shared-prefix", "shared prefix, 8 connections", metrics, load)]


def interference_cases(bench: Bench) -> list[Case]:
    quick = interference.Plan(steady_tokens=400, prompt_tokens=600, quiet_seconds=1.0)
    plan = quick if bench.quick else interference.Plan()
    keys = (
        "busy_p99_ms", "busy_p50_ms", "quiet_p99_ms", "quiet_p50_ms",
        "slowdown_p99", "slowdown_p50", "busy_p100_ms", "long_ttft_ms",
    )  # fmt: skip
    # Room for all steady answers and the long prompt, in a cache that all slots share.
    need = Need(connections=plan.streams + 1, context=16384, unified=True)

    def run(bench: Bench, kind: int | None) -> dict[str, float]:
        with started(bench, kind, need) as server:
            return interference.measure(server, plan)

    name = f"interference, {plan.streams} streams and a prompt of {plan.prompt_tokens:,} tokens"
    return [Case(name, _metrics("interference", keys), run)]


def edge_cases(bench: Bench) -> list[Case]:
    plan = edge.Plan(tokens=8_000) if bench.quick else edge.Plan()
    keys = (
        "cpu_us_per_token", "cpu_ms_per_request", "own_us_per_token", "own_ms_per_request",
        "frames_per_token", "cpu_us_per_frame",
    )  # fmt: skip
    need = Need(env={"INFERENCE_ENGINE": "fake", "DEFAULT_MODEL": "auto"})

    def run(bench: Bench, kind: int | None) -> dict[str, float]:
        with subject(bench, need) as server:
            return edge.measure(server, plan)

    name = f"edge, {plan.connections} connections, {plan.typical} tokens"
    return [Case(name, _metrics("edge", keys), run, with_peer=False)]


def memory_cases(bench: Bench) -> list[Case]:
    load = Load(8, bench.count(24, 8), bench.count(128, 16), ignore_eos=bench.ignore_eos)
    alone = ("loaded_extra_mib", "used_extra_mib", "loaded_mib", "used_mib", "kv_mib")
    shared = ("second_extra_mib", "second_extra_of_file", "second_mib", "first_mib")
    return [
        Case(
            "memory of the server",
            _metrics("memory", alone),
            lambda bench, kind: memory.measure(bench, load),
            with_peer=False,
        ),
        Case(
            "memory of a second slot",
            _metrics("memory", shared),
            lambda bench, kind: memory.measure_sharing(bench),
            with_peer=False,
        ),
    ]


SCENARIOS: dict[str, Callable[[Bench], list[Case]]] = {
    "throughput": throughput,
    "shared-prefix": shared_prefix,
    "interference": interference_cases,
    "edge": edge_cases,
    "memory": memory_cases,
}

_TITLES: dict[str, tuple[str, str, Better]] = {
    "tokens_per_s": ("tokens a second", "", "higher"),
    "requests_per_s": ("requests a second", "", "higher"),
    "ttft_p50_ms": ("time to first token, median", "ms", "lower"),
    "itl_p50_ms": ("between tokens, median", "ms", "lower"),
    "itl_p99_ms": ("between tokens, p99", "ms", "lower"),
    "cpu_us_per_token": ("server CPU a token, all in", "µs", "lower"),
    "cpu_ms_per_request": ("server CPU a request, all in", "ms", "lower"),
    "own_us_per_token": ("server CPU for one more token", "µs", "lower"),
    "own_ms_per_request": ("server CPU for one more request, without tokens", "ms", "lower"),
    "frames_per_token": ("text frames a token", "", "higher"),
    "cpu_us_per_frame": ("server CPU a text frame, all in", "µs", "lower"),
    "busy_p99_ms": ("between tokens during prefill, p99", "ms", "lower"),
    "busy_p50_ms": ("between tokens during prefill, median", "ms", "lower"),
    "busy_p100_ms": ("between tokens during prefill, longest", "ms", "lower"),
    "quiet_p99_ms": ("between tokens in quiet, p99", "ms", "lower"),
    "quiet_p50_ms": ("between tokens in quiet, median", "ms", "lower"),
    "slowdown_p99": ("p99 during prefill by p99 in quiet", "", "lower"),
    "slowdown_p50": ("median during prefill by median in quiet", "", "lower"),
    "long_ttft_ms": ("time to first token of the long prompt", "ms", "lower"),
    "loaded_mib": ("resident after loading", "MiB", "lower"),
    "used_mib": ("resident after 8 connections", "MiB", "lower"),
    "loaded_extra_mib": ("after loading, beyond model file and KV cache", "MiB", "lower"),
    "used_extra_mib": ("after 8 connections, beyond model file and KV cache", "MiB", "lower"),
    "kv_mib": ("KV cache", "MiB", "lower"),
    "first_mib": ("growth with the first engine", "MiB", "lower"),
    "second_mib": ("growth with the second engine", "MiB", "lower"),
    "second_extra_mib": ("growth with the second engine, beyond its KV cache", "MiB", "lower"),
    "second_extra_of_file": ("the same as a part of the model file", "", "lower"),
}


def _metrics(scenario: str, keys: Sequence[str]) -> list[Metric]:
    return [Metric(key, *_TITLES[key], target(scenario, key)) for key in keys]


def _load_case(scenario: str, name: str, keys: Sequence[str], load: Load) -> Case:
    return Case(name, _metrics(scenario, keys), partial(_run_load, load))


def _run_load(load: Load, bench: Bench, kind: int | None) -> dict[str, float]:
    with started(bench, kind, Need(connections=load.connections, same_cache=True)) as server:
        return load_tool.measure(bench, server, load)


def _run_defaults(load: Load, bench: Bench, kind: int | None) -> dict[str, float]:
    with subject(bench, Need()) as server:
        return load_tool.measure(bench, server, load)
