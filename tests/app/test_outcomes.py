"""The outcome of every request is counted alike, whatever served it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.server import LiveServer, live_server, wait_until
from support.stub_server import WORDS, Stub, running

pytestmark = pytest.mark.processes

CHAT = "/v1/chat/completions"
WORKER = {
    "inference_engine": "fake",
    "context_length": 64,
    "inference_mode": "load_balance",
    "instance_kind": "process",
    "cluster_instances": 1,
    "auto_scaling": False,
    "instance_port": 18720,
}
LOCAL = {"inference_engine": "fake", "context_length": 64}
LONG = "word " * 100


@pytest.fixture
def stub() -> Iterator[Stub]:
    with running() as stub:
        yield stub


@pytest.fixture(params=[LOCAL, WORKER], ids=["local", "worker"])
def own(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    """A server that computes itself."""
    with live_server(**request.param) as server:
        yield server


@pytest.fixture
def gateway(stub: Stub) -> Iterator[LiveServer]:
    """A server in front of an upstream."""
    with live_server(inference_engine="fake", upstreams=f"{stub.url}/v1#model=theirs") as server:
        yield server


def ask(server: LiveServer, model: str = "fake", content: str = "hi", **fields: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 8, **fields}
    return httpx.post(server.url + CHAT, json={"ignore_eos": True, **body}, timeout=30)


def metrics(server: LiveServer) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{server.url}/v1/system/metrics").json()
    return found


@pytest.mark.parametrize("stream", [True, False])
def test_tokens_and_their_times(own: LiveServer, stream: bool) -> None:
    assert ask(own, stream=stream).status_code == 200
    found = metrics(own)
    assert (found["requests"]["finished"], found["completion_tokens"]) == (1, 8)
    assert found["prompt_tokens"] > 0
    assert found["tokens_per_second"] > 0
    if stream:
        assert found["time_to_first_token"]["count"] == 1
        assert found["inter_token_latency"]["count"] == 7


def test_a_refused_prompt_has_no_tokens(own: LiveServer) -> None:
    answer = ask(own, content=LONG)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
    found = metrics(own)
    assert (found["requests"]["refused"], found["prompt_tokens"], found["completion_tokens"]) == (1, 0, 0)
    assert found["prefix_cache_hit_rate"] is None


def test_an_aborted_answer_has_the_tokens_that_came(own: LiveServer) -> None:
    body = {"model": "fake", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    with httpx.stream("POST", own.url + CHAT, json={**body, "ignore_eos": True, "max_tokens": 50}) as answer:
        next(answer.iter_raw())
    # The answer may have been whole before the client's leaving was known.
    wait_until(lambda: sum(metrics(own)["requests"].values()) == 1)
    found = metrics(own)
    assert found["completion_tokens"] > 0
    assert found["prompt_tokens"] > 0


def test_an_upstreams_answer(gateway: LiveServer, stub: Stub) -> None:
    stub.pause = 0.02
    assert ask(gateway, "theirs", stream=True).status_code == 200
    found = metrics(gateway)
    assert found["requests"]["finished"] == 1
    # It told no usage here, so its events count.
    assert found["completion_tokens"] == len(WORDS)
    assert found["time_to_first_token"]["count"] == 1
    assert found["inter_token_latency"]["count"] > 0
    assert found["tokens_per_second"] > 0


@pytest.mark.parametrize("mode", ["error", "cut"])
def test_an_upstreams_answer_that_breaks_off(gateway: LiveServer, stub: Stub, mode: str) -> None:
    stub.mode = mode
    assert ask(gateway, "theirs", stream=True).status_code == 200
    found = metrics(gateway)
    assert found["requests"]["error"] == 1
    assert found["completion_tokens"] == len(WORDS)


def test_an_upstreams_answer_that_the_client_leaves(gateway: LiveServer, stub: Stub) -> None:
    stub.pause = 0.1
    body = {"model": "theirs", "messages": [], "stream": True}
    with httpx.stream("POST", gateway.url + CHAT, json=body) as answer:
        for data in answer.iter_raw():
            if b"Hel" in data:
                break
    wait_until(lambda: metrics(gateway)["requests"]["aborted"] == 1)
    assert 1 <= metrics(gateway)["completion_tokens"] < len(WORDS)
