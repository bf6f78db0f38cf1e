"""LoRA adapters over HTTP, on engines of the server's process and on workers: added, used, taken away."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.lora import lora_gguf
from support.server import LiveServer, live_server
from support.tiny_gguf import tiny_gguf

pytestmark = pytest.mark.real

CATALOG = """
models:
  - name: Tiny
    path: tiny.gguf
    aliases: [t]
    context_length: 512
    adapters: [{name: listed, path: adapters/listed.gguf}]
"""
KINDS = {
    "local": {"cluster_instances": 2},
    "process": {"cluster_instances": 1, "instance_kind": "process", "instance_port": 18760},
}


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("models")
    base = tiny_gguf(folder / "tiny.gguf")
    (folder / "models.yaml").write_text(CATALOG)
    (folder / "adapters").mkdir()
    for seed, name in enumerate(("listed", "late", "wrong"), 1):
        shapes = {"blk.0.attn_q.weight": (64, 32)} if name == "wrong" else None
        lora_gguf(folder / "adapters" / f"{name}.gguf", base, seed=seed, strength=0.3, shapes=shapes)
    settings = {"inference_mode": "load_balance", "auto_scaling": False, "max_cpu_threads": 1}
    with live_server(
        model_base_path=folder, default_model="Tiny", **settings, **KINDS[request.param]
    ) as running:
        yield running


@pytest.fixture
def client(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def add(client: httpx.Client, name: str, path: str = "adapters/late.gguf", **more: Any) -> httpx.Response:
    return client.post("/v1/models/tiny/adapters", json={"name": name, "path": path, **more})


def answer(client: httpx.Client, model: str) -> str:
    body = {
        "model": model,
        "prompt": "once upon a time",
        "max_tokens": 8,
        "temperature": 0,
        "ignore_eos": True,
    }
    response = client.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["text"])


def test_one_is_added_used_and_taken_away(client: httpx.Client) -> None:
    plain, listed = answer(client, "tiny"), answer(client, "t:LISTED")
    added = add(client, "late")
    assert (added.status_code, added.json()["id"]) == (201, "Tiny:late"), added.text
    names = {card["name"]: card["source"] for card in client.get("/v1/models/t/adapters").json()["data"]}
    assert names == {"listed": "catalog", "late": "added"}
    parents = {card["id"]: card["parent"] for card in client.get("/v1/models").json()["data"]}
    assert parents["Tiny:late"] == "Tiny"
    late = [answer(client, name) for name in ("tiny:late", "Late")]  # every instance has it
    assert late[0] == late[1]
    assert len({plain, listed, late[0]}) == 3
    chat = client.post(
        "/v1/chat/completions",
        json={"model": "t:late", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2},
    )
    assert (chat.status_code, chat.json()["model"]) == (200, "Tiny:late")
    again = add(client, "LATE")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "adapter_exists")
    assert client.delete("/v1/models/t/adapters/late").json()["id"] == "Tiny:late"
    gone = client.post("/v1/completions", json={"model": "tiny:late", "prompt": "x"})
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "model_not_found")
    assert answer(client, "tiny") == plain


def test_an_instance_that_starts_later_has_it(client: httpx.Client) -> None:
    assert add(client, "late").status_code == 201
    before = answer(client, "tiny:late")
    assert client.post("/v1/cluster/restart", json={"instance_id": "all"}).status_code == 200
    assert answer(client, "tiny:late") == before
    loads = client.get("/v1/models/tiny/status").json()["loads"]
    assert client.post("/v1/models/load", json={"model_name": "tiny"}).status_code == 200
    assert client.get("/v1/models/tiny/status").json()["loads"] == loads  # it is not loaded again for it
    assert client.delete("/v1/models/tiny/adapters/tiny:late").status_code == 200


def test_one_in_use_ends_first(client: httpx.Client) -> None:
    assert add(client, "late").status_code == 201
    body = {"model": "tiny:late", "prompt": "once", "max_tokens": 200, "ignore_eos": True, "stream": True}
    with client.stream("POST", "/v1/completions", json=body) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("data:")
        removing = threading.Thread(target=lambda: client.delete("/v1/models/tiny/adapters/late"))
        removing.start()
        rest = [line for line in lines if line.startswith("data:")]
        assert rest[-1] == "data: [DONE]"
        assert '"finish_reason":"length"' in rest[-2]
    removing.join(10)
    assert not removing.is_alive()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"name": "x", "path": "adapters/wrong.gguf"}, 400, "invalid_request_error"),
        ({"name": "x", "path": "adapters/none.gguf"}, 404, "model_not_found"),
        ({"name": "x", "path": "../outside.gguf"}, 403, "path_not_allowed"),
        ({"name": "x", "path": "tiny.gguf"}, 400, "invalid_request_error"),
        ({"name": "x", "path": "adapters"}, 400, "unsupported_feature"),
        ({"name": "t", "path": "adapters/late.gguf"}, 400, "invalid_request_error"),
        ({"name": "a b", "path": "adapters/late.gguf"}, 400, "invalid_request_error"),
        ({"name": "x", "path": "adapters/late.gguf", "scale": 1e9}, 400, "invalid_request_error"),
    ],
)
def test_what_cannot_be_is_refused(
    client: httpx.Client, body: dict[str, Any], status: int, code: str
) -> None:
    refused = client.post("/v1/models/tiny/adapters", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (status, code), refused.text
    assert [card["name"] for card in client.get("/v1/models/tiny/adapters").json()["data"]] == ["listed"]


def test_those_of_the_catalog_stay(client: httpx.Client) -> None:
    refused = client.delete("/v1/models/tiny/adapters/listed")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "model_conflict")
    unknown = client.delete("/v1/models/tiny/adapters/none")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "adapter_not_found")


def test_vllms_names_for_it(client: httpx.Client) -> None:
    loaded = client.post(
        "/v1/load_lora_adapter", json={"lora_name": "late", "lora_path": "adapters/late.gguf"}
    )
    assert (loaded.status_code, loaded.text) == (200, "Success: LoRA adapter 'late' added successfully.")
    assert answer(client, "late")
    assert client.post("/v1/unload_lora_adapter", json={"lora_name": "late"}).status_code == 200
