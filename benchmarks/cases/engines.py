"""MLX and vLLM under our server and under their own, and how long each engine takes to load."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from importlib.util import find_spec
from urllib.parse import quote

from benchmarks.cases import cycles
from benchmarks.harness import peers
from benchmarks.harness.case import Case, Run, Values, metrics
from benchmarks.harness.processes import START_TIMEOUT, BenchServer
from benchmarks.harness.report import SUBJECT
from benchmarks.harness.servers import Bench, subject
from benchmarks.load import greedy
from benchmarks.load.greedy import GreedyPlan

KEYS = (
    "tokens_per_s", "ttft_p50_ms", "itl_p50_ms", "itl_p99_ms", "cpu_us_per_token", "tokens_per_answer",
)  # fmt: skip
MODULES = {"llama_cpp": "llama_cpp", "mlx": "mlx_lm", "vllm": "vllm"}
PATIENCE = {"vllm": peers.VLLM_START_TIMEOUT}


def mlx(bench: Bench) -> list[Case]:
    # mlx_lm.server cannot be told to ignore the end of an answer. On CPUs MLX is slow: few requests.
    plan = GreedyPlan(requests=bench.count(16, 8), max_tokens=bench.count(64, 8))

    def theirs() -> Values:
        with peers.mlx_server(bench, bench.hf_folder) as server:
            return greedy.measure(server, "default_model", plan)

    runs: dict[str, Run] = {SUBJECT: partial(_ours, bench, "mlx", plan), "mlx_lm.server": theirs}
    return [Case("mlx, 8 connections", metrics("mlx", KEYS), runs)]


def vllm(bench: Bench) -> list[Case]:
    plan = GreedyPlan(
        requests=bench.count(48, 8), max_tokens=bench.count(128, 16), ignore_eos=bench.ignore_eos
    )

    def theirs() -> Values:
        with peers.vllm_server(bench, bench.hf_folder) as server:
            return greedy.measure(server, server.model(), plan)

    runs: dict[str, Run] = {SUBJECT: partial(_ours, bench, "vllm", plan), "vllm serve": theirs}
    return [Case("vllm, 8 connections", metrics("vllm", KEYS), runs)]


def loading(bench: Bench) -> list[Case]:
    """Of the engines that are installed."""
    keys = ("first_load_s", "load_s", "first_answer_s", "unload_s")
    return [
        Case(f"loading, {engine}", metrics("loading", keys), {SUBJECT: partial(_load_times, bench, engine)})
        for engine in installed()
    ]


def installed() -> list[str]:
    return [engine for engine, module in MODULES.items() if find_spec(module) is not None]


def own_server(bench: Bench, engine: str) -> AbstractContextManager[BenchServer]:
    """Our server with ``engine``, its model loaded."""
    return subject(bench, cycles.engine_need(bench, engine), PATIENCE.get(engine, START_TIMEOUT))


def _ours(bench: Bench, engine: str, plan: GreedyPlan) -> Values:
    with own_server(bench, engine) as server:
        return greedy.measure(server, server.model(), plan)


def _load_times(bench: Bench, engine: str) -> Values:
    """Medians of three loads after the first, which imports the engine."""
    with own_server(bench, engine) as server:
        name = server.model()
        first = server.get(f"/v1/models/{quote(name)}/status")["load_seconds"]
        cycles.unload(server, name)
        done = [cycles.cycle(server, name) for _ in range(bench.count(3, 1))]
    parts: dict[str, Callable[[cycles.Cycle], float]] = {
        "load_s": lambda each: each.load,
        "first_answer_s": lambda each: each.chat,
        "unload_s": lambda each: each.unload,
    }
    return {"first_load_s": first} | {
        key: statistics.median(part(each) for each in done) for key, part in parts.items()
    }
