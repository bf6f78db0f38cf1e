"""From a hub to an answer: pull, quantise, load, chat, over HTTP and with a real model."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from support import hub as stand_in
from support.events import events
from support.hub import Hub
from support.models import smollm2
from support.server import LiveServer, live_server, wait_until

SMALL = {"context_length": 512, "kv_cache_tokens": 1024, "max_sequences": 4, "max_cpu_threads": 1}
CATALOG = (
    "models:\n  - {name: tiny, hub: someone/tiny-gguf, aliases: [small]}\n  - {name: idle, engine: fake}\n"
)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with stand_in.running() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.repos["someone/tiny-gguf"] = {
            "README.md": b"# tiny",
            "tiny.Q4_0.gguf": smollm2().read_bytes(),
        }
        yield hub


@pytest.fixture
def server(hub: Hub, tmp_path: Path) -> Iterator[LiveServer]:
    base = tmp_path / "models"
    base.mkdir()
    (base / "models.yaml").write_text(CATALOG)
    with live_server(model_base_path=base, default_model="idle", **SMALL) as server:
        yield server


def pull(server: LiveServer, name: str) -> Iterator[dict[str, Any]]:
    with httpx.stream(
        "POST", f"{server.url}/v1/models/pull", json={"model_name": name}, timeout=60
    ) as answer:
        assert answer.status_code == 200
        yield from events(answer)


def chat(server: LiveServer, model: str) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)


def state(server: LiveServer, model: str) -> dict[str, Any]:
    return httpx.get(f"{server.url}/v1/models/{model}/status").json()  # type: ignore[no-any-return]


def test_a_catalog_model_is_pulled_and_serves(server: LiveServer) -> None:
    assert state(server, "tiny")["state"] == "absent"
    events = list(pull(server, "small"))
    assert events[0]["status"] == "resolving"
    downloads = [event for event in events if event["status"] == "downloading"]
    assert all(event["completed"] <= event["total"] for event in downloads)
    assert events[-1]["status"] == "success"
    assert events[-1]["model"] == "tiny"
    assert state(server, "tiny")["state"] == "stopped"
    assert chat(server, "tiny").json()["model"] == "tiny"
    assert not list(server.house.library.base.rglob("*incomplete*"))


def test_a_watcher_who_leaves_cancels_and_the_next_pull_goes_on(hub: Hub, server: LiveServer) -> None:
    hub.pause = 0.02
    events = pull(server, "tiny")
    while (event := next(events))["status"] != "downloading" or event["completed"] < 5_000_000:
        assert state(server, "tiny")["state"] == "downloading"
    events.close()
    wait_until(lambda: state(server, "tiny")["state"] == "absent")
    hub.pause = 0.0
    hub.downloads.clear()
    assert list(pull(server, "tiny"))[-1]["status"] == "success"
    assert any(span for name, span in hub.downloads if name.endswith(".gguf")), "it began anew"


def test_two_watchers_share_a_pull(hub: Hub, server: LiveServer) -> None:
    hub.pause = 0.005
    ends: list[dict[str, Any]] = []
    first = pull(server, "tiny")
    next(first)
    thread = threading.Thread(target=lambda: ends.append(list(pull(server, "tiny"))[-1]))
    thread.start()
    wait_until(lambda: server.house.pulls.running("tiny")._watchers == 2)  # type: ignore[union-attr]
    first.close()  # the other still watches: it goes on
    thread.join()
    assert ends[0]["status"] == "success"
    assert len([name for name, _ in hub.downloads if name.endswith(".gguf")]) == 1


def test_what_cannot_be_pulled(hub: Hub, server: LiveServer) -> None:
    unknown = httpx.post(f"{server.url}/v1/models/pull", json={"model_name": "nobody"})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    missing = httpx.post(
        f"{server.url}/v1/models/pull", json={"model_name": "some/thing", "stream": False}, timeout=30
    )
    assert (missing.status_code, missing.json()["error"]["code"]) == (400, "pull_failed")
    assert "some/thing" in missing.json()["error"]["message"]
    hub.statuses = [500] * 50
    down = httpx.post(
        f"{server.url}/v1/models/pull", json={"model_name": "some/thing", "stream": False}, timeout=60
    )
    assert (down.status_code, down.json()["error"]["code"]) == (503, "pull_failed")
    assert int(down.headers["retry-after"]) >= 1
    hub.statuses = []
    assert list(pull(server, "some/thing"))[-1]["error"]["code"] == "pull_failed"
    hub.damaged.add("tiny.Q4_0.gguf")
    assert "error" in list(pull(server, "tiny"))[-1]
    assert state(server, "tiny")["state"] == "absent"


def test_quantise_on_load(hub: Hub, server: LiveServer) -> None:
    list(pull(server, "tiny"))
    url = f"{server.url}/v1/models/load"
    wanted = {"model_name": "tiny", "quantization": "q8_0"}
    loaded = httpx.post(url, json=wanted, timeout=120)
    assert loaded.status_code == 200, loaded.text
    assert chat(server, "tiny").status_code == 200
    (made,) = server.house.library.base.rglob("*.q8_0.gguf")
    stamp = made.stat().st_mtime_ns
    assert httpx.delete(f"{server.url}/v1/models/tiny").status_code == 200
    assert httpx.post(url, json=wanted, timeout=120).status_code == 200
    assert made.stat().st_mtime_ns == stamp, "it was converted twice"
    unknown = httpx.post(url, json={"model_name": "idle", "quantization": "q3_9"}, timeout=30)
    assert unknown.status_code == 200  # the fake engine has no weights to convert
    bad = httpx.post(url, json={**wanted, "quantization": "q3_9"}, timeout=30)
    assert (bad.status_code, bad.json()["error"]["code"]) == (400, "unsupported_feature")
    assert "q4_0" in bad.json()["error"]["message"]


def test_a_pull_goes_on_with_the_next_server(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody cancelled it. A watcher who leaves by themselves did."""
    monkeypatch.setattr("app.server.KEPT_AFTER", 0.0)
    monkeypatch.setattr("app.operations.kept_pulls.LEFT_AFTER", 0.2)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "models.yaml").write_text(CATALOG)
    settings = {"model_base_path": tmp_path / "models", "default_model": "idle", **SMALL}
    settings["state_dir"] = str(tmp_path / "state")
    hub.pause = 0.02

    def begun(server: LiveServer) -> Iterator[dict[str, Any]]:
        watched = pull(server, "tiny")
        while next(watched)["status"] != "downloading":
            pass
        return watched

    def kept() -> list[str]:
        with closing(sqlite3.connect(tmp_path / "state" / "enginehouse.db")) as database:
            return [state for (state,) in database.execute("SELECT state FROM jobs ORDER BY number")]

    with live_server(**settings) as server:
        left = begun(server)
        wait_until(lambda: (tmp_path / "state" / "enginehouse.db").exists() and kept() == ["running"])
        left.close()
        wait_until(lambda: kept() == ["cancelled"])
        watched = begun(server)
        wait_until(lambda: kept() == ["cancelled", "running"])
    with suppress(httpx.HTTPError):
        watched.close()
    assert kept() == ["cancelled", "queued"]
    with live_server(**settings) as server:
        wait_until(lambda: state(server, "tiny")["state"] == "downloading")
        begun(server).close()  # nobody has to watch this one
        hub.pause = 0.0
        wait_until(lambda: state(server, "tiny")["state"] == "stopped", seconds=30)
        wait_until(lambda: kept() == ["cancelled", "succeeded"])
