"""Servers that have each other as upstreams: nothing goes round in circles, and nothing is listed twice."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from balancer.proxy.hops import MAX_HOPS
from support.server import LiveServer, live_server, wait_until

CHAT = "/v1/chat/completions"
HTTP = httpx.Client(timeout=10)


@pytest.fixture(scope="module", autouse=True)
def closed() -> Iterator[None]:
    yield
    HTTP.close()


@pytest.fixture
def one(tmp_path: Path) -> Iterator[LiveServer]:
    with server_of(tmp_path) as server:
        yield server


@pytest.fixture
def two(tmp_path: Path) -> Iterator[LiveServer]:
    with server_of(tmp_path) as server:
        yield server


@contextmanager
def server_of(base: Path, model: str = "fake") -> Iterator[LiveServer]:
    """A server that serves two requests at once, and lets none wait long."""
    with live_server(
        inference_engine="fake",
        default_model=model,
        model_base_path=base,
        max_concurrent_requests=2,
        queue_timeout=5.0,
    ) as server:
        yield server


def add(server: LiveServer, upstream: LiveServer, name: str, **options: Any) -> None:
    body = {"url": upstream.url, "name": name} | options
    assert HTTP.post(f"{server.url}/v1/cluster/upstreams", json=body).status_code == 201
    wait_until(lambda: bool(server.call(lambda: _is_known(server, name))))


def _is_known(server: LiveServer, name: str) -> bool:
    """Whether a probe has answered, so that the upstream's id is known."""
    backend = server.house.fleet.upstreams.find(name)
    return backend is not None and bool(backend._server_id)


def ask(server: LiveServer, model: str, **headers: str) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    return HTTP.post(server.url + CHAT, json=body, headers=headers)


def ask_often(server: LiveServer, model: str) -> list[httpx.Response]:
    with ThreadPoolExecutor(12) as pool:
        return list(pool.map(lambda _: ask(server, model), range(12)))


def code(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["code"]


def listed(server: LiveServer, **headers: str) -> list[str]:
    found = HTTP.get(f"{server.url}/v1/models", headers=headers).json()["data"]
    return [card["id"] for card in found]


def id_of(server: LiveServer) -> str:
    return str(HTTP.get(f"{server.url}/v1/models").json()["server_id"])


def test_a_server_that_is_its_own_upstream(one: LiveServer) -> None:
    add(one, one, "mirror", models=["ring", "fake"])
    mirror = HTTP.get(f"{one.url}/v1/cluster/status").json()["upstreams"]["mirror"]
    assert (mirror["state"], mirror["detail"]) == ("unhealthy", "it is this server itself")
    assert {code(reply) for reply in ask_often(one, "ring")} == {(502, "bad_gateway")}
    assert {reply.status_code for reply in ask_often(one, "fake")} == {200}
    wait_until(lambda: one.house.balancer.running == 0)


def test_two_that_name_each_other(one: LiveServer, two: LiveServer) -> None:
    """Each says that the other has the model. It costs one hop to see that nobody has it."""
    add(one, two, "two", models=["ring"])
    add(two, one, "one", models=["ring"])
    for server in (one, two):
        assert {code(reply) for reply in ask_often(server, "ring")} == {(508, "loop_detected")}
    statuses = [HTTP.get(f"{each.url}/v1/cluster/status").json()["upstreams"] for each in (one, two)]
    assert [each["breaker"] for status in statuses for each in status.values()] == ["closed"] * 2
    wait_until(lambda: one.house.balancer.running == two.house.balancer.running == 0)


def test_two_that_share_a_model(one: LiveServer, two: LiveServer) -> None:
    """With more requests than both have places for, none waits for a place that a request before it holds."""
    add(one, two, "two")
    add(two, one, "one")
    replies = ask_often(one, "fake")
    assert {reply.status_code for reply in replies} == {200}
    assert len({reply.headers["x-enginehouse-backend"] for reply in replies}) == 2


def test_what_an_upstream_has_from_elsewhere_is_not_taken_over(
    one: LiveServer, two: LiveServer, tmp_path: Path
) -> None:
    with server_of(tmp_path, "far/away") as far:
        add(two, far, "far", models=["far/away"])
        add(one, two, "two")
        assert "far/away" in listed(two)
        assert "far/away" not in listed(one)
        assert code(ask(one, "far/away")) == (404, "model_not_found")
        add(one, two, "named", models=["far/away"])  # who wants it says so
        assert "far/away" in listed(one)
        assert ask(one, "far/away").status_code == 200


def test_a_request_goes_through_so_many_servers(one: LiveServer, two: LiveServer) -> None:
    add(one, two, "two", models={"there": "fake"})
    hops = [f"{number:016x}" for number in range(MAX_HOPS)]
    assert ask(one, "there", **{"x-enginehouse-hops": ",".join(hops[1:])}).status_code == 200
    for came in (hops, hops * 1000, [id_of(one)], [id_of(two)]):
        reply = ask(one, "there", **{"x-enginehouse-hops": ",".join(came)})
        assert code(reply) == (508, "loop_detected")
        assert ask(one, "fake", **{"x-enginehouse-hops": ",".join(came)}).status_code == 200
    for nonsense in ("x", "0" * 5000, ",,,"):
        assert ask(one, "there", **{"x-enginehouse-hops": nonsense}).status_code == 200
