"""The pure parts of measuring engines: plans, summaries, what counts as a leak. Nothing is started."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.cli.stream import StreamedAnswer
from benchmarks import soak
from benchmarks.cases import cycles, scenarios
from benchmarks.cases import engines as engine_cases
from benchmarks.harness import peers
from benchmarks.harness.processes import BenchError
from benchmarks.harness.report import SUBJECT
from benchmarks.harness.servers import Bench
from benchmarks.load import greedy
from benchmarks.load.greedy import GreedyPlan
from benchmarks.run import _wanted
from benchmarks.soak import Residue
from engines.models.catalog import load_catalog


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(out=tmp_path, model=tmp_path / "model.gguf", folder=tmp_path / "folder")


def test_greedy_requests_differ_and_are_the_same_for_every_server() -> None:
    plan = GreedyPlan(requests=5, max_tokens=7)
    requests = [json.loads(body) for body in greedy.bodies("m", plan, seed=1)]
    assert requests == [json.loads(body) for body in greedy.bodies("m", plan, seed=1)]
    assert len({request["messages"][0]["content"] for request in requests}) == 5
    assert all(request["temperature"] == 0 and request["max_tokens"] == 7 for request in requests)
    assert all(request["stream_options"] == {"include_usage": True} for request in requests)
    assert not any("ignore_eos" in request for request in requests)
    warm = greedy.bodies("m", plan, seed=2)
    assert not set(warm) & set(greedy.bodies("m", plan, seed=1))


def test_greedy_summary_counts_what_the_server_counted() -> None:
    answers = [
        StreamedAnswer(sent=0.0, arrivals=[0.5, 0.6, 0.8], completion_tokens=10, prompt_tokens=60),
        StreamedAnswer(sent=1.0, arrivals=[1.7, 1.8], completion_tokens=6, prompt_tokens=70),
        StreamedAnswer(sent=1.0, error="HTTP 500", completion_tokens=99),
    ]
    values = greedy.summary(answers, seconds=2.0, cpu=0.8)
    assert values["tokens_per_s"] == 8
    assert values["tokens_per_answer"] == 8
    assert values["cpu_us_per_token"] == pytest.approx(50_000)
    assert values["ttft_p50_ms"] == pytest.approx(600)
    assert values["itl_p50_ms"] == pytest.approx(100)
    assert values["errors"] == 1


def test_a_load_without_answers_is_no_result() -> None:
    with pytest.raises(BenchError, match="HTTP 500"):
        greedy.summary([StreamedAnswer(error="HTTP 500")], 1.0, 1.0)


def test_engines_are_measured_beside_their_own_servers(bench: Bench) -> None:
    assert list(engine_cases.mlx(bench)[0].runs) == [SUBJECT, "mlx_lm.server"]
    assert list(engine_cases.vllm(bench)[0].runs) == [SUBJECT, "vllm serve"]


def test_switching_is_measured_beside_a_router_if_there_is_one(bench: Bench, tmp_path: Path) -> None:
    [case] = scenarios.SCENARIOS["switch"](bench)
    assert list(case.runs) == [SUBJECT]
    peer = Bench(out=tmp_path, peer=tmp_path / "llama-server", peer_threads=(1, 2))
    [case] = scenarios.SCENARIOS["switch"](peer)
    assert list(case.runs) == [SUBJECT, "router -t 1", "router -t 2"]


def test_what_is_not_installed_is_left_out_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.run.missing", lambda scenario: "mlx_lm" if scenario == "mlx" else None)
    assert _wanted(None) == [name for name in scenarios.SCENARIOS if name != "mlx"]
    assert _wanted(["edge"]) == ["edge"]
    with pytest.raises(BenchError, match="mlx needs mlx_lm"):
        _wanted(["edge", "mlx"])


def test_vllm_gets_the_limits_of_its_peer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    class Facts:
        kv_bytes_per_token = 2**20

    monkeypatch.setattr(cycles.facts, "describe", lambda path: Facts)
    env = cycles.engine_need(bench, "vllm").settings()
    assert env["CONTEXT_LENGTH"] == str(peers.VLLM_CONTEXT)
    assert env["MAX_SEQUENCES"] == str(peers.VLLM_SEQUENCES)
    assert env["KV_CACHE_TOKENS"] == str(1024 * peers.VLLM_KV_GIB)
    catalog = load_catalog(Path(env["MODEL_BASE_PATH"]) / "models.yaml")
    assert catalog.unlisted("any").options == {"enforce_eager": True}


def test_llama_cpp_and_mlx_get_models_they_can_read(bench: Bench) -> None:
    assert cycles.engine_need(bench, "llama_cpp").settings()["DEFAULT_MODEL"].endswith("model.gguf")
    assert cycles.engine_need(bench, "mlx").settings()["DEFAULT_MODEL"].endswith("folder")


def left(resident: float = 100.0, *, threads: int = 10, children: int = 0, files: int = 20) -> Residue:
    return Residue(resident, threads, children, files, shared=0)


def test_memory_may_grow_by_a_twentieth_from_the_fifth_cycle() -> None:
    first = [left(50.0), left(70.0), left(90.0), left(95.0), left(100.0)]
    assert soak.misses([*first, *[left(105.0)] * 5]) == []
    assert soak.misses([*first, *[left(105.1)] * 5]) == ["resident memory grew from 100 to 105 MiB"]


def test_few_cycles_are_compared_with_the_first() -> None:
    assert soak.settled(50) == soak.settled(10) == 5
    assert soak.settled(9) == soak.settled(2) == 1
    assert soak.misses([left(100.0), left(200.0)]) == ["resident memory grew from 100 to 200 MiB"]


@pytest.mark.parametrize("name", ["threads", "children", "files"])
def test_nothing_else_may_be_left_behind(name: str) -> None:
    more = {name: getattr(left(), name) + 1 + soak.SLACK.get(name, 0)}
    assert soak.misses([left(), left()]) == []
    [miss] = soak.misses([left(), left(**more)])
    assert miss.startswith(f"{name} grew")
    assert soak.misses([left(**more), left()]) == []


@pytest.mark.parametrize("arguments", [["--cycles", "1"], ["--cycles", "x"], ["--engines", "none"]])
def test_soak_refuses_what_it_cannot_do(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        soak.main(arguments)
