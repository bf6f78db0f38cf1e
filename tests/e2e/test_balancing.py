"""Several instances of one model in one server, and another server behind it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from app.inference.response import BACKEND_HEADER
from support.models import smollm2
from support.server import LiveServer, live_server, wait_until

SMALL = {"context_length": 1024, "kv_cache_tokens": 4096, "max_cpu_threads": 1}
BACKEND = BACKEND_HEADER.decode()


@pytest.fixture
def server() -> Iterator[LiveServer]:
    """Two engines in one process."""
    with live_server(
        default_model=str(smollm2()),
        inference_mode="load_balance",
        cluster_instances=2,
        auto_scaling=False,
        stall_timeout=2.0,
        **SMALL,
    ) as server:
        wait_until(lambda: all(b["is_running"] for b in instances(server).values()), seconds=60)
        yield server


def status(server: LiveServer) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(f"{server.url}/v1/cluster/status").json()
    return answer


def instances(server: LiveServer) -> dict[str, Any]:
    found: dict[str, Any] = status(server)["instances"]
    return found


def count(server: LiveServer, max_tokens: int = 40) -> tuple[str, str, int]:
    """The backend that began, the text, and the tokens that were counted, of a stream of which every token is
    far more likely than any other."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        stream = client.completions.with_raw_response.create(
            model=server.house.default.name,
            prompt="1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,",
            max_tokens=max_tokens,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        text, tokens = "", 0
        for chunk in stream.parse():
            text += "".join(choice.text for choice in chunk.choices)
            tokens = chunk.usage.completion_tokens if chunk.usage else tokens
        return stream.headers[BACKEND], text, tokens


def test_a_hung_engine_is_found_and_its_streams_go_on_on_the_other(server: LiveServer) -> None:
    _, expected, tokens = count(server)
    engine = server.house.manager.resident(server.house.default.name)
    released, decode, steps = threading.Event(), engine._thread._stepper._context.decode, iter(range(1000))

    def hang(slices: Any) -> Any:
        if next(steps) > 8:
            released.wait(60)
        return decode(slices)

    engine._thread._stepper._context.decode = hang
    try:
        with ThreadPoolExecutor(4) as clients:
            answers = list(clients.map(lambda _: count(server), range(4)))
    finally:
        released.set()
    assert {began for began, _, _ in answers} == {"instance_0", "instance_1"}
    assert {(text, counted) for _, text, counted in answers} == {(expected, tokens)}
    failovers = status(server)["failovers"]
    assert failovers["resumed"] + failovers["retried"] >= 2
    assert failovers["broken"] == 0
    wait_until(lambda: all(b["is_running"] for b in instances(server).values()), seconds=30)
    assert instances(server)["instance_0"]["restarts"] == 1


def test_a_model_that_is_here_and_elsewhere_is_served_by_both(server: LiveServer) -> None:
    with live_server(default_model=str(smollm2()), **SMALL) as other:
        added = httpx.post(
            f"{server.url}/v1/cluster/upstreams", json={"url": f"{other.url}/v1", "name": "other"}
        )
        assert added.status_code == 201
        wait_until(lambda: status(server)["upstreams"]["other"]["is_running"])
        answers = [count(server, 8) for _ in range(6)]
        assert Counter(began for began, _, _ in answers) == {"instance_0": 2, "instance_1": 2, "other": 2}
        assert len({text for _, text, _ in answers}) == 1
    # It is gone without a word.
    answers = [count(server, 8) for _ in range(6)]
    assert {began for began, _, _ in answers} == {"instance_0", "instance_1"}
    assert status(server)["failovers"]["retried"] >= 1
    wait_until(lambda: status(server)["upstreams"]["other"]["state"] == "unhealthy")
    assert httpx.delete(f"{server.url}/v1/cluster/upstreams/other").status_code == 200
    assert status(server)["upstreams"] == {}


def test_what_only_another_server_has_is_relayed(server: LiveServer) -> None:
    with live_server(inference_engine="fake", default_model="echo", api_keys="sk-1") as other:
        upstream = {"url": f"{other.url}/v1", "name": "other", "api_key": "sk-1", "models": {"mine": "echo"}}
        assert httpx.post(f"{server.url}/v1/cluster/upstreams", json=upstream).status_code == 201
        wait_until(lambda: status(server)["upstreams"]["other"]["is_running"])
        body = {"model": "mine", "prompt": "one two three", "max_tokens": 8}
        answer = httpx.post(f"{server.url}/v1/completions", json=body)
        assert answer.json()["choices"][0]["text"] == "one two three"
        assert (answer.headers[BACKEND], answer.json()["model"]) == ("other", "echo")
        refused = httpx.post(f"{server.url}/v1/completions", json=body | {"max_tokens": -2})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "max_tokens")
        assert "mine" in [card["id"] for card in httpx.get(f"{server.url}/v1/models").json()["data"]]
