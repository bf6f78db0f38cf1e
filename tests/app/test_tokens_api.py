"""The routes for tokens, over a real uvicorn: each form of request, on each kind of backend."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.server import LiveServer, live_server

HELLO = [{"role": "user", "content": "one two"}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    base: Path = tmp_path_factory.mktemp("models")
    with live_server(inference_engine="fake", model_base_path=base, context_length=512) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[httpx.Client]:
    """To a server whose model "far" is an upstream's, and whose own one runs in a worker process."""
    settings = {"inference_mode": "load_balance", "instance_kind": "process", "cluster_instances": 1}
    with (
        live_server(inference_engine="fake", context_length=512, **settings) as near,
        httpx.Client(base_url=near.url, timeout=60) as client,
    ):
        upstream = {"url": f"{server.url}/v1", "name": "up", "models": {"far": "fake"}}
        assert client.post("/v1/cluster/upstreams", json=upstream).status_code < 300
        yield client


def post(client: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.mark.parametrize("model", ["fake", "far"])
def test_text_becomes_tokens_and_text_again(client: httpx.Client, model: str) -> None:
    told = post(client, "/tokenize", model=model, prompt="one two", return_token_strs=True)
    assert (told["count"], told["max_model_len"], told["token_strs"]) == (2, 512, ["one", " two"])
    bare = post(client, "/v1/tokenize", model=model, content="one two")
    assert (bare["tokens"], bare["token_strs"]) == (told["tokens"], None)
    pieces = post(client, "/tokenize", model=model, content=["é", *told["tokens"]], with_pieces=True)[
        "tokens"
    ]
    assert [piece["piece"] for piece in pieces] == [[0xC3], [0xA9], "one", " two"]
    back = post(client, "/detokenize", model=model, tokens=told["tokens"])
    assert back == {"prompt": "one two", "content": "one two"}


@pytest.mark.parametrize("model", ["fake", "far"])
def test_a_chat_is_shown_as_it_would_be_answered(client: httpx.Client, model: str) -> None:
    body = {"model": model, "messages": [{"role": "system", "content": "x"}, *HELLO], "max_tokens": 3}
    taken = post(client, "/v1/chat/completions", **body)["usage"]["prompt_tokens"]
    rendered = post(client, "/v1/chat/completions/render", **body)
    assert (len(rendered["token_ids"]), rendered["sampling_params"]["max_tokens"]) == (taken, 3)
    assert post(client, "/v1/chat/completions/input_tokens", **body) == {"input_tokens": taken}
    assert post(client, "/apply-template", **body) == {"prompt": rendered["prompt"]}
    told = post(client, "/tokenize", **body, return_token_strs=True)
    assert told["tokens"] == rendered["token_ids"]
    assert "".join(told["token_strs"]) == rendered["prompt"] == "system: x\nuser: one two\n"


@pytest.mark.parametrize("model", ["fake", "far"])
def test_a_gap_is_filled_in_as_llama_server_does(client: httpx.Client, model: str) -> None:
    """The fake engine says its prompt up to the mark behind the prefix."""
    body = {"model": model, "input_prefix": "one", "prompt": " two", "input_suffix": " three", "n_predict": 9}
    whole = post(client, "/infill", **body, samplers=["top_k"], input_extra=[{"text": "zero"}])
    assert (whole["content"], whole["stop"], whole["stop_type"]) == ("zero\none two", True, "eos")
    assert (whole["tokens_evaluated"], whole["tokens_predicted"]) == (8, 6)
    answer = client.post("/infill", json={**body, "stream": True})
    events = [json.loads(each.removeprefix("data: ")) for each in answer.text.split("\n\n") if each]
    assert "".join(event["content"] for event in events) == "one two"
    assert [event["stop"] for event in events] == [False] * (len(events) - 1) + [True]


def test_nothing_is_counted(server: LiveServer) -> None:
    def counted(client: httpx.Client) -> list[str]:
        lines = client.get("/metrics").text.splitlines()
        return [line for line in lines if line.startswith("enginehouse_prompt_tokens_total{")]

    with httpx.Client(base_url=server.url) as client:
        before = counted(client)
        post(client, "/tokenize", prompt="one two")
        post(client, "/v1/chat/completions/input_tokens", model="fake", messages=HELLO)
        assert counted(client) == before


@pytest.mark.parametrize(
    ("path", "body", "code", "param"),
    [
        ("/tokenize", {}, "invalid_request_error", "prompt"),
        ("/tokenize", {"prompt": "a", "content": "b"}, "invalid_request_error", "prompt"),
        ("/tokenize", {"prompt": 5}, "invalid_request_error", "prompt"),
        ("/tokenize", {"prompt": "a", "parse_special": False}, "unsupported_feature", "parse_special"),
        ("/tokenize", {"prompt": "a " * 2000}, "context_length_exceeded", "prompt"),
        ("/tokenize", {"model": "fake", "messages": []}, "invalid_request_error", "messages"),
        ("/tokenize", {"model": "nobody", "prompt": "a"}, "model_not_found", None),
        ("/detokenize", {"tokens": [2**40]}, "invalid_request_error", "prompt"),
        ("/detokenize", {"tokens": "a"}, "invalid_request_error", "tokens"),
        ("/apply-template", {"messages": HELLO, "tools": [{"type": "function", "function": {"name": "f"}}]},
         "unsupported_feature", "tools"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(
    server: LiveServer, path: str, body: dict[str, Any], code: str, param: str | None
) -> None:
    answer = httpx.post(server.url + path, json=body)
    assert answer.status_code in (400, 404)
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == (code, param)


def test_a_key_is_wanted_beside_v1_too(tmp_path: Path) -> None:
    with live_server(inference_engine="fake", model_base_path=tmp_path, api_keys="sk-1") as server:
        for path in ("/tokenize", "/detokenize", "/apply-template", "/infill"):
            assert httpx.post(server.url + path, json={}).status_code == 401


def test_a_text_of_ten_megabytes_is_refused_soon(server: LiveServer) -> None:
    """And another request does not wait for it."""
    body = json.dumps({"prompt": "word " * 2_000_000})
    started = time.perf_counter()
    answer = httpx.post(f"{server.url}/tokenize", content=body, timeout=30)
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert time.perf_counter() - started < 10
