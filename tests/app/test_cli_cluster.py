"""``enginehouse cluster``, as people use it, against real servers and one that only answers."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.cli.app import cli
from support import stub_server
from support.server import LiveServer, live_server, wait_until
from support.stub_server import Stub

STATUS = "GET /v1/cluster/status"


def invoke(*args: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["cluster", *args], input=stdin)


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveServer]:
    """A real server, which the commands take for this machine's."""
    with live_server(
        inference_engine="fake",
        inference_mode="load_balance",
        cluster_instances=2,
        auto_scaling=False,
        model_base_path=tmp_path,
        api_keys={"user"},
        admin_api_keys={"boss"},
    ) as server:
        wait_until(lambda: states(server) == ["ready", "ready"])
        monkeypatch.setenv("HOST", "127.0.0.1")
        monkeypatch.setenv("PORT", str(server.port))
        monkeypatch.setenv("API_KEYS", "user")
        monkeypatch.setenv("ADMIN_API_KEYS", "boss")
        yield server


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    with stub_server.running() as stub:
        monkeypatch.setenv("PORT", stub.url.rpartition(":")[2])
        stub.answers[STATUS] = 200, report()
        yield stub


def states(server: LiveServer) -> list[str]:
    return [str(status.state) for status in server.call(server.house.balancer.statuses)]


def fares(**more: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "weight": 1, "is_running": True, "state": "ready", "inflight": 2, "requests": 1234, "failures": 1,
        "success_rate": 0.9991, "avg_response_time": 2.5, "ttft_ewma": 0.0421, "breaker": "closed",
        "detail": "",
    }  # fmt: skip
    return given | more


def instance(**more: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "kind": "process", "model": "m", "port": 8001, "pid": 7, "cpu_percent": 45.2, "memory_mb": 2048.5,
        "progress": 1.0, "restarts": 0,
    }  # fmt: skip
    return fares(**given) | more


def report(**more: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "is_running": True,
        "total_instances": 1,
        "running_instances": 1,
        "load_balancer_strategy": "round_robin",
        "instances": {"instance_0": instance()},
        "upstreams": {},
        "auto_scaling": {
            "enabled": False, "min_instances": 1, "max_instances": 10, "target": 16, "ongoing": {},
            "decisions": [],
        },
        "queue_depth": 0,
        "failovers": {"retried": 0, "resumed": 0, "broken": 0},
    }  # fmt: skip
    return given | more


# -- status ------------------------------------------------------------------------------------------


def test_the_status_of_a_real_server(server: LiveServer) -> None:
    lines = invoke().stdout.splitlines()
    assert lines[0] == "2 of 2 instances run, balanced by round_robin, 0 calls wait"
    assert [line.split() for line in lines[2:]] == [
        [
            "INSTANCE",
            "MODEL",
            "KIND",
            "STATE",
            "IN",
            "FLIGHT",
            "REQUESTS",
            "SUCCESS",
            "TTFT",
            "CPU",
            "MEMORY",
        ],
        ["instance_0", "fake", "local", "ready", "0", "0", "-", "-", "-", "-"],
        ["instance_1", "fake", "local", "ready", "0", "0", "-", "-", "-", "-"],
    ]
    assert invoke("status").stdout.splitlines() == lines
    assert json.loads(invoke("--json").stdout)["total_instances"] == 2
    assert json.loads(invoke("status", "--json").stdout)["total_instances"] == 2


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (instance(), ["process :8001", "ready", "1234", "99.9%", "42 ms", "45 %", "2.1 GB"]),
        (instance(state="starting", progress=0.4), ["starting 40%"]),
        (instance(breaker="open"), ["ready, breaker open"]),
        (instance(state="failed", detail="no [room]"), ["failed", "instance_0: no [room]"]),
    ],
)
def test_what_is_shown_of_an_instance(stub: Stub, given: dict[str, Any], shown: list[str]) -> None:
    stub.answers[STATUS] = 200, report(instances={"instance_0": given})
    result = invoke()
    assert result.exit_code == 0
    for text in shown:
        assert text in result.stdout


def test_upstreams_and_decisions_are_shown(stub: Stub) -> None:
    upstream = fares(url="http://gpu1:8000/v1", models=["a", "b", "c", "d"])
    decision = {"seconds_ago": 65.2, "model": "m", "instances": 3, "reason": "40 requests ongoing"}
    scaling = report()["auto_scaling"] | {"enabled": True, "decisions": [decision]}
    failovers = {"retried": 3, "resumed": 1, "broken": 0}
    stub.answers[STATUS] = (
        200,
        report(upstreams={"gpu1": upstream}, auto_scaling=scaling, failovers=failovers),
    )
    shown = invoke().stdout
    assert "Auto-scaling: 1 to 10 instances, 16 calls each" in shown
    assert "1 min 05 s ago: m to 3, as 40 requests ongoing" in shown
    assert "Calls retried: 3, resumed: 1, broken: 0" in shown
    assert "a, b, c and 1 more" in shown
    assert "http://gpu1:8000/v1" in shown


def test_the_status_is_watched_until_ctrl_c(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        stub.answers[STATUS] = 200, report(instances={"instance_0": instance(state="draining")})
        if len(naps) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("app.cli.cluster_view.time.sleep", nap)
    result = invoke("--watch")
    assert (result.exit_code, naps) == (0, [1.0, 1.0])
    assert "draining" in result.stdout


def test_options_belong_to_the_command(stub: Stub) -> None:
    result = invoke("--url", "http://elsewhere", "scale", "up")
    assert result.exit_code == 2
    assert "enginehouse cluster scale --url" in result.stderr
    assert stub.requests == []


def test_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PORT", str(probe.getsockname()[1]))
    for command in ([], ["scale", "up"], ["restart", "all"], ["upstreams", "remove", "x"]):
        result = invoke(*command)
        assert result.exit_code == 1
        assert "start one with" in result.stderr


# -- changes -----------------------------------------------------------------------------------------


def test_scale(server: LiveServer) -> None:
    result = invoke("scale", "up", "2")
    names = "instance_0, instance_1, instance_2, instance_3"
    assert result.stdout == f"fake has 4 instead of 2 instances: {names}\n"
    wait_until(lambda: states(server) == ["ready"] * 4)
    assert invoke("scale", "down", "--model", "fake").stdout.startswith("fake has 3 instead of 4 instances")
    result = invoke("scale", "down", "3")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "at most 2 can go" in result.stderr


def test_scale_sends_what_is_given(stub: Stub) -> None:
    answer = {"message": "m has 2 instead of 1 instances", "instances": ["instance_0", "instance_1"]}
    stub.answers["POST /v1/cluster/scale"] = 200, answer
    invoke("scale", "up", "--kind", "process", "--model", "m")
    invoke("scale", "down", "3")
    assert stub.requests == [
        {"action": "scale_up", "count": 1, "model": "m", "kind": "process"},
        {"action": "scale_down", "count": 3},
    ]


def test_strategy(server: LiveServer) -> None:
    result = invoke("strategy", "prefix_aware")
    assert result.stdout == "Calls are balanced by prefix_aware instead of round_robin\n"
    assert server.house.fleet.strategy == "prefix_aware"
    result = invoke("strategy", "fastest")
    assert result.exit_code == 2
    assert "least_connections" in result.stderr


def test_restart(server: LiveServer) -> None:
    result = invoke("restart", "all")
    assert result.stdout == "instance_0 is back after 0 s\ninstance_1 is back after 0 s\n"
    result = invoke("restart", "instance_0", "--no-wait")
    assert result.stdout == "Restarting instance_0: enginehouse cluster shows how far it is\n"
    result = invoke("restart", "instance_9")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "instance_0, instance_1" in result.stderr


def test_a_restart_goes_on_after_ctrl_c(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("app.cli.cluster._send", interrupt)
    result = invoke("restart", "all")
    assert result.exit_code == 130
    assert "The restart goes on" in result.stderr


def test_upstreams(server: LiveServer) -> None:
    result = invoke("upstreams", "add", "http://127.0.0.1:9", "--name", "a/b", "--model", "ours=theirs")
    assert result.stdout == "Added a/b: enginehouse cluster shows how it does\n"
    assert "http://127.0.0.1:9/v1" in invoke().stdout
    result = invoke("upstreams", "add", "http://127.0.0.1:9", "--name", "a/b")
    assert (result.exit_code, "already" in result.stderr) == (1, True)
    assert invoke("upstreams", "remove", "a/b").stdout == "Removed a/b\n"
    result = invoke("upstreams", "remove", "a/b")
    assert (result.exit_code, "upstreams here: none" in result.stderr) == (1, True)


def test_what_an_upstream_is_given(stub: Stub) -> None:
    stub.answers["POST /v1/cluster/upstreams"] = 201, {"name": "gpu1"}
    stub.answers["DELETE /v1/cluster/upstreams/gpu1"] = 200, {"inflight": 3}
    result = invoke(
        *("upstreams", "add", "http://gpu1", "--key", "-", "--weight", "2", "--max-concurrent", "64"),
        *("--model", "same", "--model", "ours=org/theirs"),
        stdin="sesame\n",
    )
    assert result.exit_code == 0
    assert "sesame" not in result.output
    assert stub.requests == [
        {
            "url": "http://gpu1",
            "api_key": "sesame",
            "weight": 2.0,
            "models": {"same": "same", "ours": "org/theirs"},
            "max_concurrent": 64,
        }
    ]
    assert "still serves: 3" in invoke("upstreams", "remove", "gpu1").stdout
    result = invoke("upstreams", "add", "http://gpu1", "--model", "ours=")
    assert (result.exit_code, "OURS=THEIRS" in result.stderr) == (1, True)


def test_a_key_that_may_not(server: LiveServer) -> None:
    result = invoke("scale", "up", "--api-key", "user")
    assert result.exit_code == 1
    assert "ADMIN_API_KEYS" in result.stderr
    assert invoke("status", "--api-key", "user").exit_code == 0
