"""The cluster's routes over real servers with engines that need no files: what operators see and change."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from engines.errors import BadModelFile, ModelLoadError
from support.server import LiveServer, live_server, wait_until

CHAT = "/v1/chat/completions"
TOKENS = 120
LONG = {
    "messages": [{"role": "user", "content": "a b c d e f g h"}],
    "max_tokens": TOKENS,
    "ignore_eos": True,
    "temperature": 0,
}


def server_of(base: Path, **settings: Any) -> Any:
    given = {
        "inference_engine": "fake",
        "inference_mode": "load_balance",
        "cluster_instances": 3,
        "auto_scaling": False,
        "model_base_path": base,
    }
    return live_server(**(given | settings))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    with server_of(tmp_path) as server:
        wait_until(lambda: running(server) == 3)
        yield server


@pytest.fixture
def client(server: LiveServer) -> Iterator[httpx.Client]:
    with client_of(server) as client:
        yield client


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Of a server on which no test changes anything."""
    with server_of(tmp_path_factory.mktemp("models")) as server:
        wait_until(lambda: running(server) == 3)
        with client_of(server) as client:
            yield client


def client_of(server: LiveServer, key: str | None = None) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(base_url=server.url, timeout=20, headers=headers)


def running(server: LiveServer) -> int:
    states = server.call(server.house.balancer.statuses)
    return sum(status.state == "ready" for status in states)


def status(client: httpx.Client) -> dict[str, Any]:
    reply = client.get("/v1/cluster/status")
    assert reply.status_code == 200
    found: dict[str, Any] = reply.json()
    return found


def post(client: httpx.Client, what: str, **body: Any) -> httpx.Response:
    return client.post(f"/v1/cluster/{what}", json=body)


def refusal(reply: httpx.Response) -> tuple[int, str, str | None]:
    error = reply.json()["error"]
    return reply.status_code, error["code"], error["param"]


def engines(server: LiveServer) -> list[Any]:
    manager, instances = server.house.manager, server.house.cluster.instances
    return [engine for each in instances if (engine := manager.resident(each.key)) is not None]


class Streams:
    """Answers that are streamed at the same time, one to each instance of three.

    They hardly move until `check`, unless a token takes only ``pause`` seconds. ``runs_on``: the server whose
    engines answer, if it is not the one that is asked.
    """

    def __init__(
        self,
        server: LiveServer,
        count: int = 3,
        model: str = "fake",
        *,
        runs_on: LiveServer | None = None,
        pause: float = 0.05,
    ) -> None:
        self._url = server.url
        self._engines = engines(runs_on or server)
        self._pause = pause
        self._model = model
        self._begun = [threading.Event() for _ in range(count)]
        self._threads = [threading.Thread(target=self._read, args=(number,)) for number in range(count)]
        self.texts = [""] * count
        self.ended = [False] * count

    def __enter__(self) -> Streams:
        self._set_pause(self._pause)
        for thread, begun in zip(self._threads, self._begun, strict=True):
            thread.start()
            assert begun.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._finish()

    def check(self, whole: str) -> None:
        """All come to their end, and say what an undisturbed answer says."""
        self._finish()
        assert self.ended == [True] * len(self.ended)
        assert set(self.texts) == {whole}

    def _finish(self) -> None:
        self._set_pause(0.0)
        for thread in self._threads:
            thread.join(20)

    def _set_pause(self, seconds: float) -> None:
        for engine in self._engines:
            engine._delay = seconds

    def _read(self, number: int) -> None:
        body = {"model": self._model, "stream": True, **LONG}
        with httpx.stream("POST", f"{self._url}{CHAT}", json=body, timeout=20) as reply:
            for line in reply.iter_lines():
                if line == "data: [DONE]":
                    self.ended[number] = True
                elif line:
                    event = json.loads(line.removeprefix("data: "))
                    self.texts[number] += event["choices"][0]["delta"].get("content", "")
                    self._begun[number].set()


def whole_answer(client: httpx.Client, model: str = "fake") -> str:
    answer = client.post(CHAT, json={"model": model, **LONG}).json()
    return str(answer["choices"][0]["message"]["content"])


# -- status ------------------------------------------------------------------------------------------


def test_the_status_of_a_server_at_rest(unchanged: httpx.Client) -> None:
    found = status(unchanged)
    instances = found.pop("instances")
    assert found == {
        "is_running": True,
        "total_instances": 3,
        "running_instances": 3,
        "load_balancer_strategy": "round_robin",
        "upstreams": {},
        "auto_scaling": {
            "enabled": False,
            "min_instances": 1,
            "max_instances": 10,
            "target": 16,
            "ongoing": {"fake": 0},
            "decisions": [],
        },
        "queue_depth": 0,
        "failovers": {"retried": 0, "resumed": 0, "broken": 0},
    }
    assert list(instances) == ["instance_0", "instance_1", "instance_2"]
    assert instances["instance_1"] == {
        "port": None,
        "weight": 1,
        "is_running": True,
        "cpu_percent": None,
        "memory_mb": 0.0,
        "kind": "local",
        "state": "ready",
        "model": "fake",
        "inflight": 0,
        "requests": 0,
        "failures": 0,
        "success_rate": None,
        "avg_response_time": None,
        "ttft_ewma": None,
        "breaker": "closed",
        "restarts": 0,
        "pid": None,
        "detail": "",
        "progress": 1.0,
    }
    assert isinstance(instances["instance_1"]["weight"], int)


def test_the_status_counts_calls(server: LiveServer, client: httpx.Client) -> None:
    with Streams(server):
        found = status(client)
        assert found["auto_scaling"]["ongoing"] == {"fake": 3}
        assert [each["inflight"] for each in found["instances"].values()] == [1, 1, 1]
    wait_until(lambda: status(client)["auto_scaling"]["ongoing"] == {"fake": 0})
    for each in status(client)["instances"].values():
        assert (each["requests"], each["failures"], each["success_rate"]) == (1, 0, 1.0)
        assert 0 < each["ttft_ewma"] < each["avg_response_time"]


def test_a_weight_that_is_not_whole_stays_so(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text("models: [{name: half, engine: fake, weight: 0.5, instances: 2}]")
    with server_of(tmp_path, default_model="half") as server, client_of(server) as client:
        assert [each["weight"] for each in status(client)["instances"].values()] == [0.5, 0.5]


def test_the_autoscalers_decisions_are_told(tmp_path: Path) -> None:
    limits = {"min_instances": 2, "max_instances": 4, "scale_target": 3}
    with server_of(tmp_path, auto_scaling=True, **limits) as server, client_of(server) as client:
        scaling = server.house.cluster.scaling
        assert scaling is not None
        server.call(lambda: server.house.fleet.scale("fake", 5))
        server.call(scaling.tick)
        found = status(client)["auto_scaling"]
        decision = found["decisions"][0]
        assert (found["enabled"], found["min_instances"], found["max_instances"], found["target"]) == (
            True, 2, 4, 3,
        )  # fmt: skip
        assert (decision["model"], decision["instances"]) == ("fake", 4)
        assert "maximum is 4" in decision["reason"]
        assert 0 <= decision["seconds_ago"] < 20
        text = client.get("/metrics").text
        assert 'enginehouse_autoscaler_decisions_total{direction="down",model="fake"} 1.0' in text
        assert 'enginehouse_autoscaler_desired_instances{model="fake"} 2.0' in text


def test_prometheus_has_every_instance(server: LiveServer, client: httpx.Client) -> None:
    for _ in range(3):
        whole_answer(client)
    text = client.get("/metrics").text
    for number in range(3):
        assert f'enginehouse_backend_requests_total{{backend="instance_{number}",model="fake"}} 1.0' in text
        assert f'enginehouse_backend_successes_total{{backend="instance_{number}",model="fake"}} 1.0' in text
    assert 'enginehouse_failovers_total{outcome="resumed"} 0.0' in text


# -- scale -------------------------------------------------------------------------------------------


def test_more_instances_share_the_calls(server: LiveServer, client: httpx.Client) -> None:
    reply = post(client, "scale", action="scale_up", count=2)
    names = [f"instance_{number}" for number in range(5)]
    assert (reply.status_code, reply.json()) == (
        200,
        {
            "message": "fake has 5 instead of 3 instances",
            "model": "fake",
            "total_instances": 5,
            "instances": names,
        },
    )
    wait_until(lambda: running(server) == 5)
    for _ in range(5):
        whole_answer(client)
    assert {name: each["requests"] for name, each in status(client)["instances"].items()} == dict.fromkeys(
        names, 1
    )


def test_instances_that_go_finish_their_streams(server: LiveServer, client: httpx.Client) -> None:
    whole = whole_answer(client)
    with Streams(server) as streams:
        reply = post(client, "scale", action="scale_down", count=2)
        assert reply.json()["total_instances"] == 1
        leaving = [each for each in status(client)["instances"].values() if each["state"] == "draining"]
        assert [each["inflight"] for each in leaving] == [1, 1]
        streams.check(whole)
    wait_until(lambda: status(client)["total_instances"] == 1)
    assert status(client)["failovers"] == {"retried": 0, "resumed": 0, "broken": 0}
    assert whole_answer(client) == whole


def test_scaling_up_loads_a_model_that_is_not(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text("models: [{name: other, aliases: [o], engine: fake, instances: 1}]")
    with server_of(tmp_path, max_concurrent_models=2) as server, client_of(server) as client:
        reply = post(client, "scale", action="scale_up", model="o").json()
        assert (reply["model"], reply["total_instances"]) == ("other", 2)
        wait_until(
            lambda: (
                [each["state"] for each in status(client)["instances"].values() if each["model"] == "other"]
                == ["ready", "ready"]
            )
        )
        client.delete("/v1/models/other")
        wait_until(lambda: running(server) == 3)
        post(client, "scale", action="scale_down", model="other")
        wait_until(lambda: status(client)["total_instances"] == 4)
        assert server.house.manager.state("other") == "stopped", "going down loads nothing"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (400, "invalid_request_error", "action")),
        ({"action": "sideways"}, (400, "invalid_request_error", "action")),
        ({"action": "scale_up", "count": 0}, (400, "invalid_request_error", "count")),
        ({"action": "scale_up", "count": "2"}, (400, "invalid_request_error", "count")),
        ({"action": "scale_up", "count": 98}, (400, "invalid_request_error", "count")),
        ({"action": "scale_down", "count": 3}, (400, "invalid_request_error", "count")),
        ({"action": "scale_up", "model": "nobody"}, (404, "model_not_found", None)),
        ({"action": "scale_up", "kind": "cloud"}, (400, "invalid_request_error", "kind")),
        ({"action": "scale_down", "kind": "local"}, (400, "invalid_request_error", None)),
    ],
)
def test_what_cannot_be_scaled(unchanged: httpx.Client, body: dict[str, Any], expected: Any) -> None:
    assert refusal(post(unchanged, "scale", **body)) == expected
    assert status(unchanged)["total_instances"] == 3


def test_the_autoscalers_limits_are_an_operators_too(tmp_path: Path) -> None:
    limits = {"auto_scaling": True, "min_instances": 2, "max_instances": 4}
    with server_of(tmp_path, **limits) as server, client_of(server) as client:
        wait_until(lambda: running(server) == 3)
        above = post(client, "scale", action="scale_up", count=2)
        below = post(client, "scale", action="scale_down", count=2)
        assert refusal(above) == refusal(below) == (400, "invalid_request_error", "count")
        assert "MAX_INSTANCES 4" in above.json()["error"]["message"]
        assert "MIN_INSTANCES is 2" in below.json()["error"]["message"]
        assert post(client, "scale", action="scale_up").json()["total_instances"] == 4


# -- strategy ----------------------------------------------------------------------------------------


def test_the_strategy_counts_at_once(server: LiveServer, client: httpx.Client) -> None:
    reply = post(client, "strategy", strategy="least_connections").json()
    assert reply["load_balancer_strategy"] == "least_connections"
    assert reply["message"] == "calls are balanced by least_connections instead of round_robin"
    assert status(client)["load_balancer_strategy"] == "least_connections"
    with Streams(server):
        assert [each["inflight"] for each in status(client)["instances"].values()] == [1, 1, 1]


@pytest.mark.parametrize("body", [{}, {"strategy": "fastest"}, {"strategy": 3}, {"strategy": None}])
def test_unknown_strategies(unchanged: httpx.Client, body: dict[str, Any]) -> None:
    reply = post(unchanged, "strategy", **body)
    assert refusal(reply) == (400, "invalid_request_error", "strategy")
    assert status(unchanged)["load_balancer_strategy"] == "round_robin"


# -- restart -----------------------------------------------------------------------------------------


def loads(server: LiveServer) -> list[int]:
    manager, instances = server.house.manager, server.house.cluster.instances
    found: list[int] = server.call(lambda: [manager.loads(instance.key) for instance in instances])
    return found


def test_restarting_one_fails_no_stream(server: LiveServer, client: httpx.Client) -> None:
    whole = whole_answer(client)
    with Streams(server, pause=0.004) as streams:
        reply = post(client, "restart", instance_id="instance_1")
        streams.check(whole)
    assert reply.status_code == 200
    [restarted] = reply.json()["restarted"]
    assert restarted["instance_id"] == "instance_1"
    assert restarted["seconds"] > 0
    assert loads(server) == [1, 2, 1]
    found = status(client)
    assert found["running_instances"] == 3
    assert found["failovers"] == {"retried": 0, "resumed": 0, "broken": 0}


def test_restarting_all_fails_no_stream(server: LiveServer, client: httpx.Client) -> None:
    whole = whole_answer(client)
    with Streams(server, 6, pause=0.004) as streams:
        reply = post(client, "restart", instance_id="all")
        streams.check(whole)
    assert [each["instance_id"] for each in reply.json()["restarted"]] == [
        "instance_0", "instance_1", "instance_2",
    ]  # fmt: skip
    assert loads(server) == [2, 2, 2]
    assert status(client)["failovers"] == {"retried": 0, "resumed": 0, "broken": 0}


def test_an_only_instance_is_replaced_while_it_restarts(tmp_path: Path) -> None:
    with server_of(tmp_path, cluster_instances=1) as server, client_of(server) as client:
        whole = whole_answer(client)
        with Streams(server, 1) as streams:
            assert post(client, "restart", instance_id="instance_0", wait=False).status_code == 202
            wait_until(lambda: status(client)["instances"]["instance_0"]["state"] == "draining")
            assert whole_answer(client) == whole, "the stand-in serves"
            streams.check(whole)
        wait_until(lambda: list(status(client)["instances"]) == ["instance_0"])
        assert status(client)["instances"]["instance_0"]["state"] == "ready"


def test_one_restart_at_a_time(server: LiveServer, client: httpx.Client) -> None:
    with Streams(server):
        reply = post(client, "restart", instance_id="instance_0", wait=False)
        assert (reply.status_code, reply.headers["location"]) == (202, "/v1/cluster/status")
        assert reply.json() == {
            "message": "restarting instance_0",
            "instances": ["instance_0"],
            "status_url": "/v1/cluster/status",
        }
        second = post(client, "restart", instance_id="instance_1")
        assert refusal(second) == (409, "model_conflict", None)
        assert "instance_0" in second.json()["error"]["message"]
    wait_until(lambda: loads(server) == [2, 1, 1] and status(client)["running_instances"] == 3)
    assert post(client, "restart", instance_id="instance_1").status_code == 200


@pytest.mark.parametrize(("kind", "code"), [(ModelLoadError, 503), (BadModelFile, 500)])
def test_a_failure_leaves_the_others_alone(
    server: LiveServer,
    client: httpx.Client,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[ModelLoadError],
    code: int,
) -> None:
    loader = server.house.manager._loader
    load = loader.load

    async def broken(name: str, *args: Any) -> Any:
        if "instance_1" in name:
            raise kind("the disk is gone")
        return await load(name, *args)

    monkeypatch.setattr(loader, "load", broken)
    reply = post(client, "restart", instance_id="all")
    assert refusal(reply) == (code, "restart_failed", None)
    assert ("retry-after" in reply.headers) == (code == 503)
    error = reply.json()["error"]
    assert "instance_1 did not come back: the disk is gone" in error["message"]
    assert [each["instance_id"] for each in error["restarted"]] == ["instance_0"]
    assert (error["failed"], error["untouched"]) == (["instance_1"], ["instance_2"])
    found = status(client)
    assert (found["is_running"], found["running_instances"]) == (True, 2)
    assert found["instances"]["instance_1"]["detail"] == "the disk is gone"
    assert client.get("/readyz").status_code == 200
    assert client.get("/v1/system/health").json()["status"] == "degraded"
    monkeypatch.setattr(loader, "load", load)
    assert post(client, "restart", instance_id="instance_1").status_code == 200
    assert client.get("/v1/system/health").json()["status"] == "ok"


def test_what_cannot_be_restarted(server: LiveServer, client: httpx.Client) -> None:
    reply = post(client, "restart", instance_id="instance_7")
    assert refusal(reply) == (404, "instance_not_found", "instance_id")
    assert "instance_0, instance_1, instance_2" in reply.json()["error"]["message"]
    assert refusal(post(client, "restart")) == (400, "invalid_request_error", "instance_id")
    client.delete("/v1/models/fake")
    wait_until(lambda: running(server) == 0)
    assert refusal(post(client, "restart", instance_id="instance_0")) == (409, "model_conflict", None)
    assert post(client, "restart", instance_id="all").json() == {
        "message": "restarted nothing",
        "restarted": [],
    }


# -- upstreams ---------------------------------------------------------------------------------------


@pytest.fixture
def other(tmp_path: Path) -> Iterator[LiveServer]:
    """Another server, with a model of its own."""
    with live_server(
        inference_engine="fake", default_model="far/away", model_base_path=tmp_path, api_keys={"sesame"}
    ) as server:
        yield server


def wait_ready(client: httpx.Client, name: str) -> None:
    wait_until(lambda: status(client)["upstreams"][name]["state"] == "ready")


def test_an_upstream_serves_what_it_has(client: httpx.Client, other: LiveServer) -> None:
    reply = post(client, "upstreams", url=other.url, name="far", api_key="sesame", weight=2)
    assert reply.status_code == 201
    assert (reply.json()["message"], reply.json()["name"]) == ("added far", "far")
    assert "sesame" not in reply.text
    wait_ready(client, "far")
    assert client.post(CHAT, json={"model": "far/away", **LONG}).json()["model"] == "far/away"
    text = client.get("/v1/cluster/status").text
    assert "sesame" not in text
    found = json.loads(text)["upstreams"]["far"]
    assert (found["url"], found["weight"], found["requests"]) == (f"{other.url}/v1", 2, 1)
    assert "far/away" in found["models"]
    metrics = client.get("/metrics").text
    assert 'enginehouse_backend_requests_total{backend="far",model="_several"} 1.0' in metrics


def test_models_of_upstreams_are_listed(client: httpx.Client, other: LiveServer) -> None:
    post(client, "upstreams", url=other.url, name="far", api_key="sesame", models=["far/away"])
    wait_ready(client, "far")
    cards = {card["id"]: card for card in client.get("/v1/models").json()["data"]}
    assert (cards["far/away"]["owned_by"], cards["far/away"]["state"]) == ("far", "ready")
    assert cards["fake"]["owned_by"] == "enginehouse"
    assert client.get("/v1/models/far/away").json() == cards["far/away"]
    report = client.get("/v1/models/far/away/status").json()
    assert (report["state"], report["requests"], report["loading"]) == ("ready", 0, None)
    post(client, "upstreams", url=other.url, name="again", api_key="sesame", models=["far/away"])
    assert client.get("/v1/models/far/away").json()["owned_by"] == "upstream"
    assert refusal(post(client, "scale", action="scale_up", model="far/away")) == (
        400, "invalid_request_error", "model",
    )  # fmt: skip


def test_a_model_that_is_not_on_disk_may_be_elsewhere(tmp_path: Path, other: LiveServer) -> None:
    (tmp_path / "models.yaml").write_text("models: [{name: far/away, aliases: [f], hub: org/away}]")
    with server_of(tmp_path) as server, client_of(server) as client:
        assert client.get("/v1/models/f").json()["state"] == "absent"
        post(client, "upstreams", url=other.url, name="far", api_key="sesame")
        wait_ready(client, "far")
        card = client.get("/v1/models/f").json()
        assert (card["id"], card["state"], card["owned_by"], card["aliases"]) == (
            "far/away", "ready", "far", ["f"],
        )  # fmt: skip
        assert "far/away" in [card["id"] for card in client.get("/v1/models").json()["data"]]


def test_an_upstream_that_wants_another_key(client: httpx.Client, other: LiveServer) -> None:
    post(client, "upstreams", url=other.url, name="far", api_key="wrong", models=["far/away"])
    wait_until(lambda: status(client)["upstreams"]["far"]["state"] == "unhealthy")
    found = status(client)["upstreams"]["far"]
    assert (found["is_running"], "key" in found["detail"]) == (False, True)
    assert client.get("/v1/models/far/away/status").json()["state"] == "failed"
    assert client.get("/readyz").status_code == 200
    assert client.get("/v1/system/health").json()["status"] == "degraded"


def test_a_removed_upstream_finishes_what_it_does(
    server: LiveServer, client: httpx.Client, other: LiveServer
) -> None:
    post(client, "upstreams", url=other.url, api_key="sesame", models={"ours": "far/away"})
    name = other.url.removeprefix("http://")
    wait_ready(client, name)
    whole = whole_answer(client, "ours")
    with Streams(server, 1, "ours", runs_on=other) as streams:
        assert status(client)["upstreams"][name]["inflight"] == 1
        removed = client.delete(f"/v1/cluster/upstreams/{name}")
        assert (removed.status_code, removed.json()) == (
            200,
            {"message": f"removed {name}", "name": name, "inflight": 1},
        )
        assert status(client)["upstreams"] == {}
        assert client.post(CHAT, json={"model": "ours", **LONG}).status_code == 404
        streams.check(whole)
    assert client.get("/v1/models/ours").status_code == 404
    assert refusal(client.delete(f"/v1/cluster/upstreams/{name}")) == (404, "upstream_not_found", None)


def test_a_name_is_an_upstreams_alone(client: httpx.Client) -> None:
    assert post(client, "upstreams", url="http://127.0.0.1:9/v1", name="a/b").status_code == 201
    again = post(client, "upstreams", url="http://127.0.0.1:9/v1", name="a/b")
    assert refusal(again) == (409, "upstream_exists", "name")
    assert post(client, "upstreams", url="http://127.0.0.1:9/v1").json()["name"] == "127.0.0.1:9"
    assert client.delete("/v1/cluster/upstreams/a/b").status_code == 200
    assert list(status(client)["upstreams"]) == ["127.0.0.1:9"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "url"),
        ({"url": ""}, "url"),
        ({"url": "gpu1:8000"}, "url"),
        ({"url": "ftp://gpu1/v1"}, "url"),
        ({"url": "http://"}, "url"),
        ({"url": "http://[::1"}, "url"),
        ({"url": "http://gpu1:99999999/v1"}, "url"),
        ({"url": "http://gpu1/v1#key=hidden-key"}, "url"),
        ({"url": "http://gpu1/v1?key=hidden-key"}, "url"),
        ({"url": "http://me:hidden-key@gpu1/v1"}, "url"),
        ({"url": "http://gpu1", "name": "a b"}, "name"),
        ({"url": "http://gpu1", "name": "instance_1"}, "url"),
        ({"url": "http://gpu1", "api_key": "hidden-key\n"}, "api_key"),
        ({"url": "http://gpu1", "weight": 0}, "weight"),
        ({"url": "http://gpu1", "weight": 1001}, "weight"),
        ({"url": "http://gpu1", "max_concurrent": 10**100}, "max_concurrent"),
        ({"url": "http://gpu1", "models": [f"m{n}" for n in range(1001)]}, "models"),
        ({"url": "http://gpu1:0/v1"}, "url"),
        ({"url": "http://gpu1", "max_concurrent": 0}, "max_concurrent"),
        ({"url": "http://gpu1", "models": [""]}, "models"),
        ({"url": "http://gpu1", "models": {"ours": 3}}, "models.ours"),
        ({"url": "http://gpu1", "api_key_file": "/etc/passwd"}, "api_key_file"),
    ],
)
def test_what_is_no_upstream(unchanged: httpx.Client, body: dict[str, Any], param: str) -> None:
    reply = post(unchanged, "upstreams", **body)
    assert refusal(reply)[:2] == (400, "invalid_request_error")
    assert str(refusal(reply)[2]).startswith(param)
    assert "hidden-key" not in reply.text
    assert status(unchanged)["upstreams"] == {}


@pytest.mark.parametrize("url", ["http://169.254.169.254/latest", "http://[fe80::1]", "http://0xa9fea9fe/v1"])
def test_addresses_that_no_upstream_may_have(unchanged: httpx.Client, url: str) -> None:
    reply = post(unchanged, "upstreams", url=url)
    assert refusal(reply) == (403, "upstream_not_allowed", "url")
    assert "ALLOWED_UPSTREAMS" in reply.json()["error"]["message"]
    assert status(unchanged)["upstreams"] == {}


def test_only_what_is_allowed_is_added(tmp_path: Path, other: LiveServer) -> None:
    with server_of(tmp_path, allowed_upstreams="10.0.0.0/8, *.gpu.test") as server:
        with client_of(server) as client:
            for url in (other.url, "http://localhost:9/v1", "http://[::1]:9/v1"):
                assert refusal(post(client, "upstreams", url=url)) == (403, "upstream_not_allowed", "url")
            assert post(client, "upstreams", url="http://10.1.2.3/v1", name="one").status_code == 201
            assert client.delete("/v1/cluster/upstreams/one").status_code == 200


# -- who may -----------------------------------------------------------------------------------------

CHANGES: list[Callable[[httpx.Client], httpx.Response]] = [
    lambda client: post(client, "scale", action="scale_up"),
    lambda client: post(client, "strategy", strategy="random"),
    lambda client: post(client, "restart", instance_id="all"),
    lambda client: post(client, "upstreams", url="http://127.0.0.1:9/v1"),
    lambda client: client.delete("/v1/cluster/upstreams/127.0.0.1:9"),
]


def test_only_administrators_change_things(tmp_path: Path) -> None:
    with server_of(tmp_path, api_keys={"user"}, admin_api_keys={"boss"}) as server:
        nobody, user, boss = client_of(server), client_of(server, "user"), client_of(server, "boss")
        with nobody, user, boss:
            before = status(user)
            assert refusal(nobody.get("/v1/cluster/status"))[:2] == (401, "invalid_api_key")
            for change in CHANGES:
                assert refusal(change(nobody))[:2] == (401, "invalid_api_key")
                assert refusal(change(user))[:2] == (403, "insufficient_scope")
            after = status(user)
            assert after["instances"].keys() == before["instances"].keys()
            assert after["load_balancer_strategy"] == before["load_balancer_strategy"]
            assert [change(boss).is_success for change in CHANGES] == [True] * len(CHANGES)


def test_the_document_has_every_route(unchanged: httpx.Client) -> None:
    paths = unchanged.get("/openapi.json").json()["paths"]
    assert {path: set(item) for path, item in paths.items() if "/cluster/" in path} == {
        "/v1/cluster/status": {"get"},
        "/v1/cluster/scale": {"post"},
        "/v1/cluster/strategy": {"post"},
        "/v1/cluster/restart": {"post"},
        "/v1/cluster/upstreams": {"post"},
        "/v1/cluster/upstreams/{name}": {"delete"},
    }
