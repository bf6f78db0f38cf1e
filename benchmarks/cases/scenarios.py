"""What is measured: each scenario is a list of cases, each case a few lines of the table."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from tempfile import TemporaryDirectory

from balancer.policies import Strategy
from benchmarks.cases import (
    attack,
    dialects,
    drafting,
    edge,
    embeddings,
    interference,
    memory,
    policies,
    relaying,
    slots,
    structured,
    switching,
)
from benchmarks.cases import engines as engine_cases
from benchmarks.cases.attack import AttackPlan
from benchmarks.cases.dialects import DialectsPlan
from benchmarks.cases.drafting import DraftingPlan
from benchmarks.cases.edge import EdgePlan
from benchmarks.cases.interference import InterferencePlan
from benchmarks.cases.structured import StructuredPlan
from benchmarks.harness.case import Case, Values, beside_llama_server, metrics
from benchmarks.harness.embedding_model import PACKAGE
from benchmarks.harness.report import SUBJECT, Metric
from benchmarks.harness.servers import Bench, Need, started, subject
from benchmarks.harness.targets import target
from benchmarks.load import tool as load_tool
from benchmarks.load.tool import Load


def throughput(bench: Bench) -> list[Case]:
    keys = ("tokens_per_s", "ttft_p50_ms", "itl_p50_ms", "itl_p99_ms", "cpu_us_per_token")
    cases = []
    for connections, requests in ((1, 8), (8, 24), (32, 64)):
        count = bench.count(requests, connections)
        load = Load(connections, count, bench.count(128, 16), ignore_eos=bench.ignore_eos)
        name = f"throughput, {connections} connection{'s' if connections > 1 else ''}"
        cases.append(_load_case(bench, "throughput", name, keys, load))
        if connections > 1:
            cases.append(_defaults_case(bench, f"{name}, our defaults", keys, load))
    return cases


def shared_prefix(bench: Bench) -> list[Case]:
    keys = ("requests_per_s", "tokens_per_s", "ttft_p50_ms", "itl_p99_ms", "cpu_ms_per_request")
    load = Load(8, bench.count(24, 8), bench.count(32, 4), shared_prefix=True, ignore_eos=bench.ignore_eos)
    return [_load_case(bench, "shared-prefix", "shared prefix, 8 connections", keys, load)]


def interference_cases(bench: Bench) -> list[Case]:
    quick = InterferencePlan(steady_tokens=400, prompt_tokens=600, quiet_seconds=1.0)
    plan = quick if bench.quick else InterferencePlan()
    keys = (
        "busy_p99_ms", "busy_p50_ms", "quiet_p99_ms", "quiet_p50_ms",
        "slowdown_p99", "slowdown_p50", "busy_p100_ms", "long_ttft_ms",
    )  # fmt: skip
    # Room for all steady answers and the long prompt, in a cache that all slots share.
    need = Need(connections=plan.streams + 1, context=16384, unified=True)

    def measure(kind: int | None) -> Values:
        with started(bench, kind, need) as server:
            return interference.measure(server, plan)

    name = f"interference, {plan.streams} streams and a prompt of {plan.prompt_tokens:,} tokens"
    return [Case(name, metrics("interference", keys), beside_llama_server(bench, measure))]


def structured_cases(bench: Bench) -> list[Case]:
    plan = StructuredPlan(tokens=32, rounds=1) if bench.quick else StructuredPlan()
    keys = ("schema_tokens_per_s", "free_tokens_per_s", "schema_by_free", "neighbour_by_free")
    need = Need(connections=plan.connections, same_cache=True)

    def measure(kind: int | None) -> Values:
        with started(bench, kind, need) as server:
            return structured.measure(server, plan)

    name = f"structured output, {plan.connections} connections"
    return [Case(name, metrics("structured", keys), beside_llama_server(bench, measure))]


def edge_cases(bench: Bench) -> list[Case]:
    plan = EdgePlan(tokens=8_000) if bench.quick else EdgePlan()
    keys = (
        "cpu_us_per_token", "cpu_ms_per_request", "own_us_per_token", "own_ms_per_request",
        "frames_per_token", "cpu_us_per_frame",
    )  # fmt: skip
    need = Need(env={"INFERENCE_ENGINE": "fake", "DEFAULT_MODEL": "auto"})

    def measure() -> Values:
        with subject(bench, need) as server:
            return edge.measure(server, plan)

    name = f"edge, {plan.connections} connections, {plan.typical} tokens"
    return [Case(name, metrics("edge", keys), {SUBJECT: measure})]


def dialects_cases(bench: Bench) -> list[Case]:
    plan = DialectsPlan(requests=40, rounds=1) if bench.quick else DialectsPlan()
    keys = (
        "chat_us_per_token", "responses_us_per_token", "stored_us_per_token", "messages_us_per_token",
        "responses_by_chat", "stored_by_chat", "messages_by_chat",
    )  # fmt: skip

    def measure() -> Values:
        with TemporaryDirectory() as state:
            need = Need(env={"INFERENCE_ENGINE": "fake", "DEFAULT_MODEL": "auto", "STATE_DIR": state})
            with subject(bench, need) as server:
                return dialects.measure(server, plan)

    name = f"dialects, {plan.connections} connections, {plan.length} tokens"
    return [Case(name, metrics("dialects", keys), {SUBJECT: measure})]


def memory_cases(bench: Bench) -> list[Case]:
    load = Load(8, bench.count(24, 8), bench.count(128, 16), ignore_eos=bench.ignore_eos)
    alone = ("loaded_extra_mib", "used_extra_mib", "loaded_mib", "used_mib", "kv_mib")
    shared = ("second_extra_mib", "second_extra_of_file", "second_mib", "first_mib")
    return [
        Case(
            "memory of the server",
            metrics("memory", alone),
            {SUBJECT: lambda: memory.measure(bench, load)},
        ),
        Case(
            "memory of a second slot",
            metrics("memory", shared),
            {SUBJECT: lambda: memory.measure_sharing(bench)},
        ),
    ]


def slots_cases(bench: Bench) -> list[Case]:
    keys = ("three_by_one", "three_mib", "one_mib", "kv_mib")
    return [Case("three local slots", metrics("slots", keys), {SUBJECT: lambda: slots.measure(bench)})]


def drafting_cases(bench: Bench) -> list[Case]:
    keys = ("tokens_per_s", "plain_per_s", "draft_gain", "draft_cpu", "accepted_share")
    cases = []
    for kind, texts in (("copying", drafting.COPYING), ("ordinary", drafting.ORDINARY)):
        for connections in (1, 8):
            plan = DraftingPlan(texts, connections, bench.count(3, 1), bench.count(160, 8))
            name = f"drafting, {kind}, {connections} connection{'s' if connections > 1 else ''}"
            run = partial(drafting.measure, bench, plan)
            cases.append(Case(name, metrics(name, keys), {SUBJECT: run}))
    return cases


def policies_cases(bench: Bench) -> list[Case]:
    bound = target("policies", "choice_us")
    lines = [Metric(strategy.value, strategy.value, "µs", "lower", bound) for strategy in Strategy]
    name = f"choice of one of {policies.BACKENDS} instances"
    return [Case(name, lines, {SUBJECT: policies.measure})]


def attack_cases(bench: Bench) -> list[Case]:
    plan = AttackPlan.quick() if bench.quick else AttackPlan()
    keys = ("bodies_ms", "silent_ms", "headers_ms", "readers_ms", "idle_ms", "place_s", "grown_mib")
    return [
        Case("attack", metrics("attack", keys), {SUBJECT: lambda: attack.measure(bench, plan)}),
        Case(
            "attack, special tokens",
            metrics("attack", ("tokens_ms", "tokens_answer_s")),
            {SUBJECT: lambda: attack.measure_tokens(bench, plan)},
        ),
    ]


SCENARIOS: dict[str, Callable[[Bench], list[Case]]] = {
    "throughput": throughput,
    "shared-prefix": shared_prefix,
    "interference": interference_cases,
    "structured": structured_cases,
    "edge": edge_cases,
    "dialects": dialects_cases,
    "memory": memory_cases,
    "mlx": engine_cases.mlx,
    "vllm": engine_cases.vllm,
    "switch": switching.cases,
    "loading": engine_cases.loading,
    "embeddings": embeddings.cases,
    "relaying": relaying.cases,
    "slots": slots_cases,
    "drafting": drafting_cases,
    "policies": policies_cases,
    "attack": attack_cases,
}

_NEEDED = {"mlx": "mlx_lm", "vllm": "vllm", "embeddings": PACKAGE}


def missing(scenario: str) -> str | None:
    """The module that ``scenario`` needs and this Python does not have."""
    module = _NEEDED.get(scenario)
    return module if module is not None and find_spec(module) is None else None


def _load_case(bench: Bench, scenario: str, name: str, keys: tuple[str, ...], load: Load) -> Case:
    need = Need(connections=load.connections, same_cache=True)

    def measure(kind: int | None) -> Values:
        with started(bench, kind, need) as server:
            return load_tool.measure(bench, server, load)

    return Case(name, metrics(scenario, keys), beside_llama_server(bench, measure))


def _defaults_case(bench: Bench, name: str, keys: tuple[str, ...], load: Load) -> Case:
    def measure() -> Values:
        with subject(bench, Need()) as server:
            return load_tool.measure(bench, server, load)

    return Case(name, metrics("defaults", keys), {SUBJECT: measure})
