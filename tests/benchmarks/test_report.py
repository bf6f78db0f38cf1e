"""The pure parts of the benchmarks: what the numbers become. Nothing is measured here."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.cli.stream import StreamedAnswer
from benchmarks.cases import edge, interference
from benchmarks.cases.interference import Window
from benchmarks.cases.scenarios import SCENARIOS
from benchmarks.harness import results
from benchmarks.harness.processes import BenchError
from benchmarks.harness.report import (
    BEGIN,
    END,
    SUBJECT,
    Better,
    Goal,
    Line,
    Measurement,
    Metric,
    best_peer,
    failures,
    lines,
    median_values,
    number,
    solve_cost,
    table,
    with_results,
)
from benchmarks.harness.results import Result
from benchmarks.harness.servers import Bench
from benchmarks.load import tool as load_tool
from benchmarks.load.tool import Load

SPEED = Metric("speed", "tokens a second", "", "higher", Goal("ratio", 1.0))
DELAY = Metric("delay", "first token", "ms", "lower")


def metric(better: Better, target: Goal | None) -> Metric:
    return Metric("key", "title", "unit", better, target)


@pytest.mark.parametrize(
    ("better", "target", "ours", "peer", "verdict"),
    [
        ("higher", Goal("ratio", 1.0), 110.0, 100.0, "met"),
        ("higher", Goal("ratio", 1.0), 100.0, 100.0, "met"),
        ("higher", Goal("ratio", 1.0), 99.9, 100.0, "missed"),
        ("higher", Goal("ratio", 1.2), 110.0, 100.0, "missed"),
        ("lower", Goal("ratio", 0.5), 40.0, 100.0, "met"),
        ("lower", Goal("ratio", 0.5), 51.0, 100.0, "missed"),
        ("lower", Goal("value", 30.0), 29.0, None, "met"),
        ("lower", Goal("value", 30.0), 31.0, 100.0, "missed"),
        ("higher", Goal("value", 30.0), 31.0, None, "met"),
        ("higher", Goal("ratio", 1.0), 100.0, None, "no peer"),
        ("higher", Goal("ratio", 1.0), 100.0, 0.0, "no peer"),
        ("higher", Goal("ratio", 1.0), None, 100.0, "missed"),
        ("higher", None, 1.0, 100.0, ""),
    ],
)
def test_verdict(
    better: Better, target: Goal | None, ours: float | None, peer: float | None, verdict: str
) -> None:
    assert Line("case", metric(better, target), ours, peer).verdict == verdict


def test_a_run_with_failures_misses_its_target() -> None:
    good = Line("case", SPEED, 200.0, 100.0)
    assert good.verdict == "met"
    assert Line("case", SPEED, 200.0, 100.0, note="3 requests failed").verdict == "missed"


def test_ratio_is_ours_by_the_peers() -> None:
    assert Line("case", SPEED, 150.0, 100.0).ratio == 1.5
    assert Line("case", SPEED, 150.0).ratio is None
    assert Line("case", SPEED, None, 100.0).ratio is None


def test_the_better_peer_counts_for_all_lines() -> None:
    measurements = [
        Measurement("load", SUBJECT, {"speed": 100.0, "delay": 10.0}),
        Measurement("load", "-t 1", {"speed": 90.0, "delay": 5.0}),
        Measurement("load", "-t 2", {"speed": 95.0, "delay": 20.0}),
        Measurement("another", "-t 1", {"speed": 900.0}),
    ]
    speed, delay = lines("load", [SPEED, DELAY], measurements)
    assert (speed.ours, speed.peer, speed.peer_name) == (100.0, 95.0, "-t 2")
    assert (delay.ours, delay.peer, delay.peer_name) == (10.0, 20.0, "-t 2")


def test_lines_are_medians() -> None:
    runs = [("-t 1", 50.0), (SUBJECT, 10.0), (SUBJECT, 30.0), (SUBJECT, 90.0), ("-t 1", 20.0), ("-t 1", 25.0)]
    [line] = lines("load", [SPEED], [Measurement("load", server, {"speed": v}) for server, v in runs])
    assert (line.ours, line.peer) == (30.0, 25.0)


def test_lines_without_a_peer_and_without_us() -> None:
    [line] = lines("load", [SPEED], [Measurement("load", SUBJECT, error="it\ndied")])
    assert (line.ours, line.peer, line.verdict, line.note) == (None, None, "missed", "it died")
    [line] = lines("load", [SPEED], [])
    assert line.verdict == "missed"


def test_best_peer_follows_the_metric() -> None:
    peers = {"-t 1": {"speed": 1.0, "delay": 1.0}, "-t 2": {"speed": 2.0, "delay": 2.0}, "broken": {}}
    assert best_peer(SPEED, peers) == "-t 2"
    assert best_peer(DELAY, peers) == "-t 1"
    assert best_peer(SPEED, {"broken": {}}) == ""


def test_medians_take_what_is_there() -> None:
    group = [Measurement("c", "s", {"a": 1.0, "b": 5.0}), Measurement("c", "s", {"a": 3.0})]
    assert median_values(group) == {"a": 2.0, "b": 5.0}
    assert median_values([]) == {}


def test_failures_are_said_once() -> None:
    broken = Measurement("c", "s", error="no\n  answer")
    assert failures([broken, broken]) == "no answer"
    failed = [Measurement("c", "s", {"errors": 2.0}), Measurement("c", "s", {"errors": 1.0})]
    assert failures(failed) == "3 requests failed"
    assert failures([Measurement("c", "s", {"errors": 0.0})]) == ""


def test_cost_of_a_request_and_of_a_token() -> None:
    request, token = solve_cost((16.0, 1.0 + 16 * 0.02), (256.0, 1.0 + 256 * 0.02))
    assert request == pytest.approx(1.0)
    assert token == pytest.approx(0.02)
    with pytest.raises(ValueError, match="different lengths"):
        solve_cost((16.0, 1.0), (16.0, 2.0))


def test_edge_summary_parts_the_costs() -> None:
    def cost(length: int) -> edge.Cost:
        return edge.Cost(length, requests=100, cpu=100 * (2e-3 + length * 20e-6), frames=length / 2)

    values = edge.summary(cost(16), cost(200), cost(256))
    assert values["own_us_per_token"] == pytest.approx(20)
    assert values["own_ms_per_request"] == pytest.approx(2)
    assert values["cpu_us_per_token"] == pytest.approx(30)
    assert values["cpu_ms_per_request"] == pytest.approx(6)
    assert values["frames_per_token"] == 0.5
    assert values["cpu_us_per_frame"] == pytest.approx(60)


def test_gaps_that_touch_a_window_are_in_it() -> None:
    answers = [
        StreamedAnswer(arrivals=[0.0, 1.0, 4.0, 5.0, 6.0]),
        StreamedAnswer(arrivals=[2.5]),
        StreamedAnswer(),
    ]
    assert Window(2.0, 4.5).gaps(answers) == [3.0, 1.0]
    assert Window(10.0, 20.0).gaps(answers) == []


def test_interference_summary() -> None:
    quiet = [0.01 * step for step in range(101)]
    steady = [StreamedAnswer(arrivals=[*quiet, 1.5, 2.0])]
    long = StreamedAnswer(sent=1.0, arrivals=[2.0], prompt_tokens=4000)
    values = interference.summary(Window(0.0, 1.0), Window(1.0, 2.0), steady, long)
    assert values["quiet_p50_ms"] == pytest.approx(10)
    assert values["busy_p50_ms"] == pytest.approx(500)
    assert values["busy_p100_ms"] == pytest.approx(500)
    assert values["slowdown_p50"] == pytest.approx(50)
    assert values["long_ttft_ms"] == pytest.approx(1000)
    assert (values["quiet_gaps"], values["busy_gaps"]) == (100, 2)
    with pytest.raises(BenchError, match="no token"):
        interference.summary(Window(0.0, 1.0), Window(5.0, 6.0), steady, long)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), (0.0, "0.00"), (0.123456, "0.123"), (0.999, "1.00"), (-0.5, "-0.500"), (12.345, "12.35"),
        (99.49, "99.49"), (123.456, "123.5"), (1234.5, "1,234"), (1234567.0, "1,234,567"),
    ],
)  # fmt: skip
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


def test_table() -> None:
    rows = [
        Line("8 connections", SPEED, 1500.0, 1000.0, "-t 2"),
        Line("8 connections", DELAY, 12.5, note="a | b"),
        Line("32 connections", metric("lower", Goal("value", 30.0)), None),
    ]
    head, rule, *body = table(rows).splitlines()
    assert head == "| Scenario | What | Ours | Peer | Ratio | Target | Result |"
    assert rule.count("|") == head.count("|")
    assert body == [
        "| 8 connections | tokens a second | 1,500 | 1,000 (-t 2) | 1.50x | ≥ 1.00x | met |",
        "| 8 connections | first token, ms | 12.50 | - | - |  | a \\| b |",
        "| 32 connections | title, unit | - | - | - | ≤ 30.00 | missed |",
    ]


def test_results_replace_only_what_is_between_the_markers() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter {END}\n"
    once = with_results(page, "new")
    assert once == f"before\n{BEGIN}\nnew\n{END}\nafter {END}\n"
    assert with_results(once, "new") == once
    for broken in ("no markers", f"{END} {BEGIN}"):
        with pytest.raises(ValueError, match="not found"):
            with_results(broken, "new")


def test_the_page_has_the_markers_and_every_scenario() -> None:
    page = (Path(__file__).parents[2] / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert with_results(page, "new").count("\nnew\n") == 1
    assert all(f"`{name}`" in page for name in SCENARIOS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_has_cases_with_names_of_their_own(name: str, tmp_path: Path) -> None:
    cases = SCENARIOS[name](Bench(out=tmp_path, model=tmp_path / "model.gguf"))
    assert cases
    assert len({case.name for case in cases}) == len(cases)
    assert all(case.metrics for case in cases)


def test_saved_results_come_back(tmp_path: Path) -> None:
    runs = [
        Measurement("load", SUBJECT, {"speed": 2.0, "delay": 1.0}),
        Measurement("load", "-t 1", error="it died"),
    ]
    result = Result("throughput", "2026-01-20", {"CPU": "one"}, [("load", [SPEED, DELAY])], runs)
    results.save(result, tmp_path)
    again = results.load(tmp_path / "throughput.json")
    assert again == result
    assert again.lines() == result.lines()


def test_the_report_says_where_and_when() -> None:
    def result(date: str, cpu: str) -> Result:
        return Result("s", date, {"CPU": cpu}, [("load", [DELAY])], [])

    text = results.markdown([result("2026-01-20", "one"), result("2026-01-21", "one")])
    assert text.startswith("- Measured: 2026-01-20 · 2026-01-21\n- CPU: one\n\n| Scenario")
    assert "- CPU: one · two" in results.markdown([result("2026-01-20", "one"), result("2026-01-20", "two")])


def test_own_report_in_common_names() -> None:
    report = {
        "requests": 8,
        "errors": 0,
        "tokens_per_second": 100.0,
        "requests_per_second": 2.0,
        "ttft": {"p50": 0.05, "p99": 0.1},
        "inter_token": {"p50": 0.008, "p99": None},
        "end_to_end": {"p50": 1.0, "p99": 2.0},
        "cpu_ms_per_request": None,
        "cpu_us_per_token": 20.0,
        "first_error": None,
    }
    assert load_tool.from_own(report) == pytest.approx(
        {
            "requests": 8, "errors": 0, "tokens_per_s": 100.0, "requests_per_s": 2.0,
            "ttft_p50_ms": 50.0, "ttft_p99_ms": 100.0, "itl_p50_ms": 8.0,
            "total_p50_ms": 1000.0, "total_p99_ms": 2000.0, "cpu_us_per_token": 20.0,
        }
    )  # fmt: skip


def test_an_external_tool_gets_the_documented_options() -> None:
    load = Load(connections=8, requests=24, max_tokens=32, shared_prefix=True, ignore_eos=True)
    assert " ".join(load_tool.external_options(7, load)) == (
        "--connections 8 --requests 24 --max-tokens 32 --pid 7 --json --ignore-eos --shared-prefix"
    )
