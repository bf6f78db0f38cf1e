"""Loading, unloading, listing and watching models over HTTP, with engines that need no files."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from app.connections import PROMPT_SECONDS
from engines.lifecycle.states import ModelState
from engines.models.model import Changes
from support.gguf import DATA, FILE, LLAMA, header
from support.server import LiveServer, live_server, wait_until

CHAT = "/v1/chat/completions"
CATALOG = """
models:
  - {name: one, engine: fake, aliases: [uno]}
  - {name: org/two, engine: fake, sampling: {max_tokens: 3}}
  - {name: short, engine: fake, keep_alive: 0}
  - {name: kept, engine: fake, pin: true}
  - {name: away, hub: org/away}
"""
CROWDED = """
models:
  - {name: one, engine: fake}
  - {name: base, path: base.gguf, engine: llama_cpp}
  - {name: chatty, path: chatty.gguf, engine: llama_cpp, kv_cache_tokens: 1000000}
  - {name: odd, path: chatty.gguf, engine: llama_cpp, quantization: q0_0}
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "models.yaml").write_text(CATALOG)
    return folder


@pytest.fixture
def server(base: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveServer]:
    monkeypatch.setattr("app.operations.library_watch.RELOAD_SECONDS", 0.1)
    with live_server(model_base_path=base, default_model="one", queue_timeout=5) as server:
        yield server


@pytest.fixture
def client(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=20) as client:
        yield client


def chat(model: str, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "a b c d e f"}], **fields}


def load(client: httpx.Client, name: str, **fields: Any) -> httpx.Response:
    return client.post("/v1/models/load", json={"model_name": name, **fields})


def state(client: httpx.Client, name: str) -> str:
    return str(client.get(f"/v1/models/{name}/status").json()["state"])


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def test_the_list_shows_what_can_be_served(client: httpx.Client) -> None:
    cards = {card["id"]: card for card in client.get("/v1/models").json()["data"]}
    assert next(iter(cards)) == "one"
    assert cards["one"]["state"] == "ready"
    assert cards["org/two"]["state"] == "stopped"
    able = {"context_length", "max_model_len", "capabilities", "output_modalities"}
    assert {name: cards["one"][name] for name in able} == {name: cards["org/two"][name] for name in able}
    assert {"chat", "completion", "fim"} < set(cards["one"]["capabilities"])
    assert "away" not in cards
    everything = client.get("/v1/models", params={"all": True}).json()["data"]
    assert {card["id"]: card["state"] for card in everything}["away"] == "absent"
    assert client.get("/v1/models/org/two").json()["id"] == "org/two"
    assert client.get("/v1/models/uno").json()["id"] == "one"
    assert code(client.get("/v1/models/nobody")) == (404, "model_not_found")
    assert code(client.get("/v1/models/nobody/status")) == (404, "model_not_found")


def test_a_request_switches_and_the_catalogs_sampling_counts(client: httpx.Client) -> None:
    answer = client.post(CHAT, json=chat("org/two")).json()
    assert (answer["model"], answer["usage"]["completion_tokens"]) == ("org/two", 3)
    said = client.post(CHAT, json=chat("org/two", max_completion_tokens=5)).json()
    assert said["usage"]["completion_tokens"] == 5
    assert (state(client, "one"), state(client, "org/two")) == ("stopped", "ready")
    assert client.post(CHAT, json=chat("uno", max_tokens=2)).json()["model"] == "one"


def test_load_and_unload(client: httpx.Client) -> None:
    loaded = load(client, "org/two", keep_alive="10m", pin=True)
    assert loaded.status_code == 200
    report = loaded.json()
    assert (report["state"], report["pinned"], report["keep_alive"]) == ("ready", True, 600)
    assert code(client.delete("/v1/models/org/two")) == (409, "model_conflict")
    assert code(load(client, "one")) == (400, "insufficient_memory")  # the only place is pinned
    refused = client.post(CHAT, json=chat("one"))
    assert code(refused) == (400, "insufficient_memory")
    assert "retry-after" not in refused.headers
    assert load(client, "org/two", pin=False).json()["pinned"] is False
    assert client.delete("/v1/models/org/two").json()["state"] == "stopped"
    assert client.delete("/v1/models/org/two").json()["state"] == "stopped"
    assert code(client.delete("/v1/models/nobody")) == (404, "model_not_found")


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server with one model loaded, and others that can never be."""
    base = tmp_path_factory.mktemp("crowded")
    for name in ("base.gguf", "chatty.gguf"):
        template = {"tokenizer.chat_template": "x"} if name == "chatty.gguf" else {}
        (base / name).write_bytes(header(LLAMA | template) + bytes(DATA))
    (base / "models.yaml").write_text(CROWDED)
    with live_server(model_base_path=base, default_model="one", queue_timeout=5, max_memory="70MB") as server:
        wait_until(lambda: server.house.manager.state("one") is ModelState.READY)
        yield server


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"model_name": "chatty", "quantization": "q9_9"}, "cannot quantise to 'q9_9'"),
        ({"model_name": "chatty", "quantization": "q9_9", "wait": False}, "cannot quantise to 'q9_9'"),
        ({"model_name": "chatty", "context_length": 5000}, "a context of 4,096 tokens, not of 5,000"),
        ({"model_name": "chatty", "engine": "vllm"}, "no engine can load chatty"),
        ({"model_name": "chatty", "context_length": 4096}, "the memory budget leaves"),
        ({"model_name": "odd"}, "cannot quantise to 'q0_0'"),
    ],
)
def test_a_load_that_cannot_be_touches_no_other_model(
    crowded: LiveServer, wish: dict[str, Any], words: str
) -> None:
    with httpx.Client(base_url=crowded.url, timeout=20) as client:
        refused = client.post("/v1/models/load", json=wish)
        assert refused.status_code == 400, refused.text
        assert words in refused.json()["error"]["message"]
        assert (state(client, "one"), crowded.house.manager.loads("one")) == ("ready", 1)


@pytest.mark.parametrize(
    ("path", "model", "error", "words"),
    [
        ("chat/completions", "base", "unsupported_feature", "has no chat template"),
        ("chat/completions", "odd", "unsupported_feature", "cannot quantise to 'q0_0'"),
        ("completions", "chatty", "insufficient_memory", "the memory budget leaves"),
    ],
)
def test_a_request_that_cannot_be_served_touches_no_other_model(
    crowded: LiveServer, path: str, model: str, error: str, words: str
) -> None:
    """And it is told so at once, each time, as nothing that comes with time."""
    what = {"prompt": "hi"} if path == "completions" else {"messages": [{"role": "user", "content": "hi"}]}
    with httpx.Client(base_url=crowded.url, timeout=20) as client:
        for _ in range(2):
            refused = client.post(f"/v1/{path}", json={"model": model, **what})
            assert code(refused) == (400, error), refused.text
            assert words in refused.json()["error"]["message"]
            assert "retry-after" not in refused.headers
        assert (state(client, "one"), crowded.house.manager.loads("one")) == ("ready", 1)


def test_a_load_takes_up_a_changed_entry(server: LiveServer, client: httpx.Client, base: Path) -> None:
    assert load(client, "org/two").status_code == load(client, "org/two").status_code == 200
    assert server.house.manager.loads("org/two") == 1
    (base / "models.yaml").write_text(CATALOG.replace("sampling:", "slots: 3, sampling:"))
    wait_until(lambda: server.house.library.find("org/two").entry.slots == 3)
    assert server.house.manager.loads("org/two") == 1  # what runs is left alone until somebody says so
    assert load(client, "org/two", pin=True).json()["pinned"]
    assert server.house.manager.loads("org/two") == 2
    assert load(client, "org/two").json()["state"] == "ready"
    assert server.house.manager.loads("org/two") == 2


def test_what_can_never_be_loaded_is_not_unavailable_for_a_while(base: Path, tmp_path: Path) -> None:
    (base / "broken.gguf").write_bytes(b"GGUF\x03\0\0\0" + b"\xff" * 64)
    (base / "whole.gguf").write_bytes(header(LLAMA | {"tokenizer.chat_template": "x"}) + bytes(DATA))
    (base / "models.yaml").write_text(f"{CATALOG}  - {{name: whole, engine: vllm}}\n")
    expected = {"broken": (404, "model_not_found"), "whole": (400, "unsupported_feature")}
    with (
        live_server(model_base_path=base, default_model="one", queue_timeout=5) as server,
        httpx.Client(base_url=server.url, timeout=20) as client,
    ):
        for name, refusal in expected.items():
            for response in (
                client.post(CHAT, json=chat(name)),
                client.post(CHAT, json=chat(name, stream=True)),
            ):
                assert code(response) == refusal, response.text
                assert "retry-after" not in response.headers
                assert name in response.json()["error"]["message"]


def test_load_without_waiting(client: httpx.Client) -> None:
    accepted = load(client, "org/two", wait=False)
    assert accepted.status_code == 202
    url = accepted.json()["status_url"]
    assert url == accepted.headers["location"] == f"/v1/models/{quote('org/two')}/status"
    wait_until(lambda: client.get(url).json()["state"] == "ready")


def test_unloading_waits_for_running_requests(server: LiveServer, client: httpx.Client) -> None:
    server.engine()._delay = 0.005  # type: ignore[union-attr]
    long = chat("one", max_tokens=100, ignore_eos=True, stream=True)
    with client.stream("POST", CHAT, json=long) as stream:
        lines = stream.iter_lines()
        next(lines)
        answers: list[httpx.Response] = []
        thread = threading.Thread(
            target=lambda: answers.append(httpx.delete(f"{server.url}/v1/models/one", timeout=20))
        )
        thread.start()
        wait_until(lambda: server.house.manager.status("one").state is ModelState.DRAINING)
        assert "data: [DONE]" in list(lines)
    thread.join()
    assert answers[0].json()["state"] == "stopped"


def test_force_fails_running_requests(server: LiveServer, client: httpx.Client) -> None:
    server.engine()._delay = 0.01  # type: ignore[union-attr]
    long = chat("one", max_tokens=4000, ignore_eos=True, stream=True)
    with client.stream("POST", CHAT, json=long) as stream:
        lines = stream.iter_lines()
        next(lines)
        gone = httpx.delete(f"{server.url}/v1/models/one", params={"force": True}, timeout=20)
        assert gone.json()["state"] == "stopped"
        rest = list(lines)
    assert "data: [DONE]" not in rest
    assert any("engine_error" in line for line in rest)


def test_keep_alive_zero_unloads_after_the_reply(client: httpx.Client) -> None:
    client.post(CHAT, json=chat("short"))
    wait_until(lambda: state(client, "short") == "stopped")
    client.post(CHAT, json=chat("one", keep_alive="0s"))
    wait_until(lambda: state(client, "one") == "stopped")
    client.post(CHAT, json=chat("one", keep_alive=60))
    report = client.get("/v1/models/one/status").json()
    assert 50 < report["expires_in"] <= 60
    bad = client.post(CHAT, json=chat("one", keep_alive="soon"))
    assert code(bad) == (400, "invalid_request_error")
    assert bad.json()["error"]["param"] == "keep_alive"


def test_other_settings_for_a_model_in_use(server: LiveServer, client: httpx.Client) -> None:
    server.engine()._delay = 0.01  # type: ignore[union-attr]
    long = chat("one", max_tokens=4000, ignore_eos=True, stream=True)
    with client.stream("POST", CHAT, json=long) as stream:
        pieces = stream.iter_lines()
        next(pieces)
        assert load(client, "one").status_code == 200  # nothing to do
        assert code(load(client, "one", context_length=256)) == (409, "model_conflict")
    wait_until(lambda: server.house.manager.status("one").inflight == 0)
    assert load(client, "one", context_length=256).json()["context_length"] == 256


@pytest.mark.parametrize(
    "path",
    [
        "../secret.gguf", "/etc/passwd", "sub/../../secret.gguf", "link.gguf", "linked/secret.gguf",
        "a\u0000b", "~/x.gguf", "..",
    ],
)  # fmt: skip
def test_paths_out_of_the_model_folder(base: Path, client: httpx.Client, path: str) -> None:
    secret = base.parent / "secret.gguf"
    secret.write_bytes(b"GGUF" + b"secret" * 100)
    accessed = secret.stat().st_atime_ns
    if not (base / "link.gguf").exists():
        (base / "link.gguf").symlink_to(secret)
        (base / "linked").symlink_to(base.parent)
    refused = load(client, "mine", model_path=path)
    assert refused.status_code in (400, 403, 404)
    if path.startswith("~"):
        assert refused.status_code == 404  # a file of that very name inside the folder
    else:
        assert code(refused) == (403, "path_not_allowed")
    assert "secret" not in refused.json()["error"]["message"].replace("secret.gguf", "")
    assert secret.stat().st_atime_ns == accessed


@pytest.mark.parametrize(
    "body",
    [
        {}, {"model_name": ""}, {"model_name": 5}, {"model_name": "one", "engine": "tgi"}, [],
        {"model_name": "one", "context_length": 0}, {"model_name": "one", "wait": "no"},
        {"model_name": "one", "keep_alive": "soon"}, {"model_name": "one", "unknown": 1},
        {"model_name": "one", "quantization": "q4 0"},
    ],
)  # fmt: skip
def test_malformed_load_requests(client: httpx.Client, body: object) -> None:
    assert code(client.post("/v1/models/load", json=body)) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (".", "is no model"),
        ("empty", "is no model"),
        ("notes.txt", "is no model"),
        ("none.gguf", "is not a GGUF file"),
        ("cut.gguf", "is cut off"),
        ("hollow", "has no weights"),
        ("odd", "config.json cannot be read"),
        ("part-00001-of-00002.gguf", "is incomplete"),
    ],
)
def test_what_is_no_model_is_the_clients_mistake(
    base: Path, client: httpx.Client, path: str, words: str
) -> None:
    for folder in ("empty", "hollow", "odd"):
        (base / folder).mkdir()
    (base / "hollow" / "config.json").write_text("{}")
    (base / "odd" / "config.json").write_text("[")
    (base / "notes.txt").write_text("hello")
    (base / "none.gguf").write_bytes(b"NOPE" * 10)
    (base / "part-00001-of-00002.gguf").write_bytes(FILE)
    (base / "cut.gguf").write_bytes(b"GGUF\x03\0\0\0")
    refused = load(client, "mine", model_path=path)
    assert code(refused) == (400, "invalid_request_error")
    assert words in refused.json()["error"]["message"]


def test_a_long_list_is_made_in_steps(
    server: LiveServer, client: httpx.Client, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else waits for it, and models at rest cost no look at their state."""
    entries = "".join(f"  - {{name: m-{number}, engine: fake}}\n" for number in range(1000))
    (base / "models.yaml").write_text(f"{CATALOG}{entries}")
    wait_until(lambda: server.house.library.get("m-999") is not None)
    steps: list[None] = []
    looks: list[str] = []
    sleep, status = asyncio.sleep, server.house.manager.status

    async def counted_sleep(seconds: float) -> None:
        if not seconds:
            steps.append(None)
        await sleep(seconds)

    def counted_status(name: str) -> Any:
        looks.append(name)
        return status(name)

    monkeypatch.setattr("app.routers.models.asyncio.sleep", counted_sleep)
    monkeypatch.setattr(server.house.manager, "status", counted_status)
    listed = [card["id"] for card in client.get("/v1/models").json()["data"]]
    assert listed[0] == "one"
    assert set(listed) >= {"org/two", "short", "kept", *(f"m-{number}" for number in range(1000))}
    assert looks == ["one"]
    assert len(steps) >= 1000 // 200


def test_the_catalog_is_read_beside_the_event_loop(
    server: LiveServer, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []
    read = server.house.library.read

    def noting() -> Any:
        threads.append(threading.current_thread())
        return read()

    monkeypatch.setattr(server.house.library, "read", noting)
    (base / "models.yaml").write_text(CATALOG + "  - {name: new, engine: fake}\n")
    wait_until(lambda: server.house.library.get("new") is not None)
    assert "live-app" not in {thread.name for thread in threads}


def test_what_is_not_there_cannot_be_loaded(client: httpx.Client) -> None:
    assert code(load(client, "nobody")) == (404, "model_not_found")
    assert code(load(client, "mine", model_path="none.gguf")) == (404, "model_not_found")
    absent = load(client, "away")
    assert code(absent) == (404, "model_not_found")
    assert "enginehouse pull away" in absent.json()["error"]["message"]
    asked = client.post(CHAT, json=chat("away"))
    assert asked.status_code >= 400
    assert "enginehouse pull away" in asked.json()["error"]["message"]


def test_only_admins_manage_models_if_there_are_admin_keys(base: Path) -> None:
    keys = {"api_keys": "user", "admin_api_keys": "boss"}
    with live_server(model_base_path=base, default_model="one", **keys) as server:
        for key, status in (("user", 403), ("boss", 200), ("nobody", 401)):
            headers = {"authorization": f"Bearer {key}"}
            with httpx.Client(base_url=server.url, headers=headers) as client:
                assert load(client, "one").status_code == status
                assert client.delete("/v1/models/org/two").status_code == status
                expected = 401 if status == 401 else 200
                assert client.post(CHAT, json=chat("one", max_tokens=2)).status_code == expected
    with live_server(model_base_path=base, default_model="one", admin_api_keys="boss") as server:
        with httpx.Client(base_url=server.url) as client:
            assert client.post(CHAT, json=chat("one", max_tokens=2)).status_code == 200
            assert code(load(client, "one")) == (403, "insufficient_scope")


def test_events_tell_each_change(server: LiveServer, client: httpx.Client) -> None:
    seen: list[dict[str, Any]] = []
    with httpx.stream("GET", f"{server.url}/v1/system/events", timeout=20) as events:
        assert events.headers["content-type"].startswith("text/event-stream")
        time.sleep(PROMPT_SECONDS)  # whoever leaves sooner may have asked all they want, and still wait
        load(client, "org/two")
        for line in events.iter_lines():
            if line.startswith("data: "):
                seen.append(json.loads(line.removeprefix("data: ")))
            if seen and (seen[-1]["model"], seen[-1]["to"]) == ("org/two", "ready"):
                break
    assert [(e["model"], e["from"], e["to"]) for e in seen] == [
        ("one", "ready", "draining"),
        ("one", "draining", "stopped"),
        ("org/two", "stopped", "loading"),
        ("org/two", "loading", "ready"),
    ]
    wait_until(lambda: server.house.manager.events.listeners == 0)


def test_the_catalog_is_read_again_when_it_changes(
    base: Path, server: LiveServer, client: httpx.Client
) -> None:
    catalog = base / "models.yaml"
    catalog.write_text(CATALOG + "  - {name: newcomer, engine: fake}\n")
    wait_until(lambda: client.get("/v1/models/newcomer").status_code == 200)
    client.post(CHAT, json=chat("newcomer", max_tokens=2))
    catalog.write_text("models:\n  - {name: broken, engine: nonsense}\n")
    wait_until(lambda: not server.house.library.changed())
    assert client.get("/v1/models/newcomer").status_code == 200  # a mistake changes nothing
    catalog.write_text(CATALOG)
    wait_until(lambda: client.get("/v1/models/newcomer").status_code == 404)
    wait_until(lambda: server.engine("newcomer") is None)
    assert code(client.post(CHAT, json=chat("newcomer"))) == (404, "model_not_found")


@pytest.mark.parametrize(("name", "then"), [("one", "stopped"), ("kept", "ready")])
def test_a_loaded_model_whose_file_is_overwritten_is_unloaded(
    server: LiveServer,
    client: httpx.Client,
    name: str,
    then: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And loaded again if it is pinned."""
    assert load(client, name).status_code == 200
    before = server.engine(name)
    seen = Changes(overwritten=(name, "away"))
    monkeypatch.setattr(server.house.library, "adopt", lambda _: seen)
    server.call(server.house.library_watch.reload)
    wait_until(lambda: server.engine(name) is not before)
    wait_until(lambda: state(client, name) == then)
    assert f"{name} was overwritten while it is loaded" in caplog.text
    assert "away was overwritten" not in caplog.text
    assert client.post(CHAT, json=chat(name, max_tokens=2)).status_code == 200


def test_metrics_of_models(client: httpx.Client) -> None:
    load(client, "org/two")
    text = client.get("/metrics").text
    assert "enginehouse_model_evictions_total 1.0" in text
    assert 'enginehouse_model_state{model="org/two",state="ready"} 1.0' in text
    assert 'enginehouse_model_load_seconds{model="org/two"}' in text
