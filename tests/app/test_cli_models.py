"""The commands that manage a running server's models: ps, load, unload, pull."""

from __future__ import annotations

import json
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from app.cli import client, follow, progress
from app.cli.app import cli
from app.cli.progress import Bar, Step, download_step
from app.cli.text import duration_text, size_text
from app.pull_requests import Usefulness, usefulness
from engines.machine import platform
from engines.machine.footprint import Footprint
from support import hub as stand_in
from support import stub_server
from support.gguf import FILE
from support.hub import Hub
from support.server import LiveServer, live_server, wait_until
from support.stub_server import Stub

pytestmark = pytest.mark.processes

CATALOG = "models: [{name: tiny, aliases: [gpt-4o]}, {name: far, hub: acme/far}]"
WEIGHTS = FILE + random.Random(1).randbytes(300_000 - len(FILE))


def invoke(*args: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, list(args), input=stdin)


@pytest.fixture(autouse=True)
def base(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The model folder, with a file that looks like a model."""
    monkeypatch.chdir(tmp_path)
    base = tmp_path / "models"
    base.mkdir()
    (base / "tiny.Q4_0.gguf").write_bytes(FILE + bytes(1000))
    (base / "models.yaml").write_text(CATALOG)
    return base


@pytest.fixture
def server(base: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveServer]:
    """A real server, which the commands take for this machine's."""
    with live_server(
        inference_engine="fake",
        inference_mode="multi_instance",
        max_concurrent_models=2,
        model_base_path=base,
    ) as server:
        monkeypatch.setenv("HOST", "127.0.0.1")
        monkeypatch.setenv("PORT", str(server.port))
        yield server


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    with stub_server.running() as stub:
        monkeypatch.setenv("PORT", stub.url.rpartition(":")[2])
        yield stub


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PORT", str(probe.getsockname()[1]))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with stand_in.running() as hub:
        hub.repos["acme/far"] = {"far.Q4_0.gguf": WEIGHTS, "far.Q8_0.gguf": WEIGHTS + b"8"}
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield hub


def report(name: str = "m", state: str = "ready", **more: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "id": name, "state": state, "engine": "llama_cpp", "memory": 2_000_000_000, "devices": ["cpu"],
        "context_length": 4096, "requests": 0, "pinned": False, "keep_alive": -1.0, "expires_in": None,
        "retry_after": None, "loading": None, "download": None, "detail": "", "load_seconds": 1.5,
    }  # fmt: skip
    return given | more


def told(stub: Stub, *reports: dict[str, Any]) -> None:
    """Have the stub tell of these models."""
    stub.answers["GET /v1/models"] = 200, {"data": [{"id": r["id"], "state": r["state"]} for r in reports]}
    for each in reports:
        stub.answers[f"GET /v1/models/{each['id']}/status"] = 200, each


# -- ps ---------------------------------------------------------------------------------------------


def test_ps_of_a_real_server(server: LiveServer) -> None:
    lines = invoke("ps").stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["NAME", "ENGINE", "STATE", "SIZE", "DEVICE", "CONTEXT", "REQUESTS", "UNTIL"],
        ["fake", "fake", "ready", "-", "cpu", "8,192", "0", "forever"],
    ]
    [only] = json.loads(invoke("ps", "--json").stdout)
    assert (only["id"], only["state"], only["requests"]) == ("fake", "ready", 0)


@pytest.mark.parametrize(
    ("more", "shown"),
    [
        ({}, ["ready", "2.0 GB", "forever"]),
        ({"pinned": True}, ["pinned"]),
        ({"keep_alive": 300.0, "expires_in": 245.0}, ["4 min 05 s"]),
        ({"keep_alive": 300.0, "requests": 2}, ["5 min 00 s unused"]),
        (
            {"state": "loading", "loading": {"phase": "loading", "progress": 0.25, "eta_seconds": 12.0}},
            ["loading 25%, 12 s left"],
        ),
        (
            {
                "state": "downloading",
                "download": {"status": "verifying", "completed": 5, "total": 10, "eta_seconds": None},
            },
            ["verifying 50%"],
        ),
        ({"state": "failed", "retry_after": 8.0, "detail": "no [room]"}, ["retry in 8 s", "m: no [room]"]),
        ({"state": "failed", "retry_after": 0.0}, ["next request"]),
    ],
)  # fmt: skip
def test_ps_shows(stub: Stub, more: dict[str, Any], shown: list[str]) -> None:
    told(stub, report(**more), report("resting", "stopped"), report("missing", "absent"))
    output = invoke("ps").stdout
    for text in shown:
        assert text in output
    assert "resting" not in output
    assert "missing" not in output


def test_ps_with_nothing_loaded(stub: Stub) -> None:
    told(stub, report(state="stopped"))
    assert "enginehouse load NAME" in invoke("ps").stdout
    assert invoke("ps", "--json").stdout == "[]\n"


def test_ps_of_another_kind_of_server(stub: Stub) -> None:
    result = invoke("ps")
    assert result.exit_code == 1
    assert "no Enginehouse" in result.stderr


def test_ps_watches_until_ctrl_c(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    told(stub, report(state="loading"))
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        told(stub, report(state="ready"))
        if len(naps) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("app.cli.ps.time.sleep", nap)
    result = invoke("ps", "--watch")
    assert result.exit_code == 0
    assert naps == [1.0, 1.0]
    assert "ready" in result.stdout


# -- load and unload --------------------------------------------------------------------------------


def test_load_and_unload(server: LiveServer) -> None:
    result = invoke("load", "gpt-4o", "--keep-alive", "5m", "--pin", "--context-length", "512")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("tiny is ready: fake on cpu, context 512 tokens")
    status = server.call(lambda: server.house.manager.status("tiny"))
    assert (status.keep_alive, status.pinned, status.state) == (300.0, True, "ready")

    result = invoke("unload", "tiny")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "pinned" in result.stderr
    result = invoke("unload", "tiny", "--force")
    assert (result.exit_code, result.stdout) == (0, "tiny is unloaded\n")
    assert server.engine("tiny") is None


@pytest.mark.parametrize(("name", "reason"), [("far", "enginehouse pull far"), ("nope", "no model 'nope'")])
def test_load_says_why_not(server: LiveServer, name: str, reason: str) -> None:
    result = invoke("load", name)
    assert (result.exit_code, result.stdout) == (1, "")
    assert reason in result.stderr


def test_load_from_a_path(server: LiveServer, base: Path) -> None:
    (base / "sub").mkdir()
    (base / "sub" / "other.gguf").write_bytes(FILE)
    result = invoke("load", "mine", "--path", "sub/other.gguf")
    assert result.stdout.startswith("mine is ready")
    result = invoke("load", "mine", "--path", "../outside.gguf")
    assert result.exit_code == 1
    assert "inside the model folder" in result.stderr


def test_load_shows_how_far_it_is(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.01)
    loading = {"phase": "loading", "progress": 0.5, "eta_seconds": 3.0}
    told(stub, report(state="loading", loading=loading))
    stub.answers["POST /v1/models/load"] = 200, report()
    stub.pause = 0.1
    result = invoke("load", "m", "--engine", "llama_cpp", "--quantization", "q4_0")
    assert result.stderr == "loading m 50% 3 s left\n"
    assert result.stdout == "m is ready: llama_cpp on cpu, context 4,096 tokens, 2.0 GB, loaded in 1.5 s\n"
    assert stub.requests == [
        {"model_name": "m", "wait": True, "engine": "llama_cpp", "quantization": "q4_0"}
    ]  # fmt: skip


def test_load_with_an_engine_that_there_is_not() -> None:
    result = invoke("load", "m", "--engine", "abacus")
    assert result.exit_code == 2
    assert "'abacus' is not one of 'auto', 'vllm', 'mlx', 'llama_cpp', 'fake'." in " ".join(
        line.strip("│ ") for line in result.stderr.splitlines()
    )


def test_load_without_waiting(server: LiveServer) -> None:
    result = invoke("load", "tiny", "--no-wait")
    assert result.stdout == "The load of tiny has begun: enginehouse ps shows how far it is\n"
    wait_until(lambda: server.engine("tiny") is not None)
    assert invoke("load", "tiny", "--no-wait").stdout == "tiny is ready\n"


def test_unload_waits_for_running_requests(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.01)
    server.engine()._delay = 0.02  # type: ignore[union-attr]
    body = {"model": "fake", "prompt": "word " * 60, "max_tokens": 50}
    replies: list[httpx.Response] = []
    asking = threading.Thread(
        target=lambda: replies.append(httpx.post(f"{server.url}/v1/completions", json=body))
    )
    asking.start()
    wait_until(lambda: server.house.manager.status("fake").inflight == 1)
    result = invoke("stop", "fake")
    asking.join()
    assert result.stdout == "fake is unloaded\n"
    assert "draining fake requests that still run: 1" in result.stderr
    assert replies[0].status_code == 200


@pytest.mark.parametrize(
    ("command", "advice"),
    [(["load", "m"], "The load goes on"), (["unload", "m"], "It is unloaded all the same")],
)
def test_ctrl_c_leaves(stub: Stub, monkeypatch: pytest.MonkeyPatch, command: list[str], advice: str) -> None:
    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(follow, "_follow", lambda *args: None)
    monkeypatch.setattr("app.cli.follow.asyncio.run", interrupted)
    result = invoke(*command)
    assert result.exit_code == 130
    assert advice in result.stderr


# -- keys and connections ---------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["ps"], ["load", "m"], ["unload", "m"], ["pull", "m"]])
def test_no_server_where_one_was_named(no_server: None, command: list[str]) -> None:
    result = invoke(*command, "--url", "localhost:1")
    assert result.exit_code == 1
    assert "No server answers at http://localhost:1: start one with" in result.stderr


def test_an_administrators_key_goes_first(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEYS", "user")
    monkeypatch.setenv("ADMIN_API_KEYS", "admin")
    told(stub)
    invoke("ps")
    invoke("ps", "--api-key", "given")
    assert [each["authorization"] for each in stub.headers] == ["Bearer admin", "Bearer given"]


@pytest.mark.parametrize(("status", "advice"), [(401, "--api-key"), (403, "ADMIN_API_KEYS")])
def test_a_missing_key_is_explained(stub: Stub, status: int, advice: str) -> None:
    stub.answers["DELETE /v1/models/m"] = status, {"error": {"message": "not you"}}
    result = invoke("unload", "m")
    assert result.exit_code == 1
    assert f"not you (HTTP {status}): " in result.stderr
    assert advice in result.stderr


# -- pull -------------------------------------------------------------------------------------------


def test_pull_through_the_server(server: LiveServer, hub: Hub, base: Path) -> None:
    hub.pause = 0.1
    result = invoke("pull", "far", "--include", "*Q8_0*")
    assert result.exit_code == 0, result.output
    assert "far.Q8_0.gguf, 300 kB" in result.stdout
    assert result.stderr.startswith("resolving far\ndownloading far 0% 0 B of 300 kB\n")
    assert "done" not in result.stderr
    assert (base / "acme/far/far.Q8_0.gguf").read_bytes() == WEIGHTS + b"8"
    assert invoke("load", "far").stdout.startswith("far is ready")


def test_pull_without_a_server(no_server: None, hub: Hub, base: Path) -> None:
    result = invoke("pull", "far")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"Pulled far: far.Q4_0.gguf, 300 kB, in {Path('models/acme/far')}\n"
    assert (base / "acme/far/far.Q4_0.gguf").read_bytes() == WEIGHTS


def test_pull_by_a_pasted_address(no_server: None, hub: Hub, base: Path) -> None:
    result = invoke("pull", "https://huggingface.co/acme/far/blob/main/far.Q8_0.gguf?x=1")
    assert result.exit_code == 0, result.output
    result = invoke("pull", "hf.co/acme/far:q9_9")
    assert result.exit_code == 1
    assert "there is no q9_9: choose one of Q4_0, Q8_0" in result.stderr
    assert [path.name for path in (base / "acme/far").iterdir()] == ["far.Q8_0.gguf"]


@pytest.mark.parametrize("through", ["server", "nobody"])
def test_pull_asks_about_what_cannot_be_run(
    through: str, hub: Hub, base: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the size and the reason, before anything is downloaded."""
    hub.repos["acme/folder"] = {"config.json": b"{}", "model.safetensors": WEIGHTS, "tokenizer.json": b"{}"}
    monkeypatch.setenv("INFERENCE_ENGINE", "llama_cpp")
    if through == "server":
        server = request.getfixturevalue("server")
        facts = platform.Facts("linux", "x86_64", "3.11", 2, 2, 2**30, 2**30, packages={"llama_cpp": ""})
        monkeypatch.setattr(
            server.house.pulls, "_useful", usefulness(facts, "llama_cpp", Footprint(ram=2**30))
        )
    else:
        request.getfixturevalue("no_server")
    for answer in ("n\n", ""):
        result = invoke("pull", "acme/folder", stdin=answer)
        assert result.exit_code == 1
        assert (
            "acme/folder has 0.0 GB to download, which no engine can run here: llama_cpp: " in result.stderr
        )
        assert (hub.downloads, list(base.glob("acme/folder/*"))) == ([], [])
    assert invoke("pull", "acme/folder", stdin="y\n").exit_code == 0
    assert invoke("pull", "acme/folder", "--yes").exit_code == 0
    assert (base / "acme/folder/model.safetensors").read_bytes() == WEIGHTS


def test_another_quantisation_is_no_part_of_a_running_pull(server: LiveServer, hub: Hub) -> None:
    hub.pause = 0.02
    route = f"{server.url}/v1/models/pull"
    with httpx.stream("POST", route, json={"model_name": "acme/far:Q4_0"}) as first:
        lines = first.iter_lines()
        next(lines)
        other = httpx.post(route, json={"model_name": "acme/far:Q8_0", "stream": False})
        assert (other.status_code, other.json()["error"]["code"]) == (409, "model_conflict")
        same = httpx.post(route, json={"model_name": "acme/far:Q4_0", "stream": False})
        assert same.json()["files"] == ["far.Q4_0.gguf"]
        assert "success" in "".join(lines)


def test_the_pull_route_refuses_what_cannot_be_run(server: LiveServer, hub: Hub, base: Path) -> None:
    server.house.pulls._useful = Usefulness({}, 1000)
    wish = {"model_name": "acme/far", "stream": False}
    refused = httpx.post(f"{server.url}/v1/models/pull", json=wish)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "cannot_run")
    assert "0.0 GB to download, and models may take 0.0 GB" in refused.json()["error"]["message"]
    assert hub.downloads == []
    assert httpx.post(f"{server.url}/v1/models/pull", json=wish | {"force": True}).status_code == 200


@pytest.mark.parametrize(
    ("name", "reason"), [("nope", "neither a catalog model"), ("acme/gone", "acme/gone")]
)
def test_pull_without_a_server_says_why_not(no_server: None, hub: Hub, name: str, reason: str) -> None:
    result = invoke("pull", name)
    assert (result.exit_code, result.stdout) == (1, "")
    assert reason in result.stderr


def test_pull_through_the_server_says_why_not(server: LiveServer, hub: Hub) -> None:
    result = invoke("pull", "acme/gone")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "acme/gone" in result.stderr


def test_pull_sends_what_was_asked_for(stub: Stub) -> None:
    done = {"status": "success", "model": "m", "path": "/models/m", "size": 3, "files": ["a", "b"]}
    stub.answers["POST /v1/models/pull"] = 200, [done]
    options = ["--source", "modelscope", "--revision", "v1", "--include", "a", "--include", "b"]
    result = invoke("pull", "org/m", *options)
    assert result.stdout == "Pulled org/m: 2 files, 3 B, in /models/m\n"
    assert stub.requests == [
        {"model_name": "org/m", "source": "modelscope", "revision": "v1", "include": ["a", "b"]}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("events", "message"),
    [([{"error": {"message": "the disk is full"}}], "the disk is full"), ([], "broke the pull off")],
)
def test_a_pull_that_breaks_off(stub: Stub, events: list[Any], message: str) -> None:
    stub.answers["POST /v1/models/pull"] = 200, events
    result = invoke("pull", "m")
    assert result.exit_code == 1
    assert message in result.stderr


def test_ctrl_c_stops_a_pull_and_says_that_nothing_is_lost(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(http: httpx.Client, body: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "stream_pull", interrupted)
    result = invoke("pull", "m")
    assert result.exit_code == 130
    assert "the next pull goes on from there" in result.stderr


# -- progress and numbers ---------------------------------------------------------------------------


def test_lines_come_every_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar() as bar:
        for percent in range(101):
            bar.show(Step("loading m", percent / 100))
        bar.show(Step("verifying m"))
        bar.show(Step("verifying m"))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [*(f"loading m {percent}%" for percent in range(0, 101, 10)), "verifying m"]


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "err", Console(stderr=True, force_terminal=True, width=100))
    with Bar() as bar:
        bar.show(Step("loading [m]", 0.25, "3 s left"))
    drawn = capsys.readouterr().err
    assert "loading [m]" in drawn
    assert "25%" in drawn
    assert "3 s left" in drawn


def test_a_download_in_words() -> None:
    so_far = {"status": "downloading", "completed": 5e8, "total": 2e9, "speed": 25e6, "eta_seconds": 60.0}
    assert str(download_step("m", so_far)) == "downloading m 25% 500 MB of 2.0 GB 25 MB/s 1 min 00 s left"
    assert str(download_step("m", so_far | {"total": None})) == "downloading m"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (3599.9, "1 h 00 min"), (7500, "2 h 05 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(999, "999 B"), (1500, "2 kB"), (2e6, "2 MB"), (3.25e9, "3.2 GB")]
)
def test_sizes(size: float, text: str) -> None:
    assert size_text(size) == text
