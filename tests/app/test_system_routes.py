from __future__ import annotations

import time
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from app import __version__
from app.routers import system
from app.telemetry.metrics import Metrics
from balancer.backends.base import BackendState, BackendStatus
from engines.base import EngineInfo, EngineStats

INFO = EngineInfo("fake", "m", 2048, 8, ("cpu",))


class StubHouse:
    """A house with whatever backends the test puts in; it is its own balancer."""

    def __init__(self) -> None:
        self.states: list[BackendState] = [BackendState.READY]
        self.replicas: set[int] = set()
        self.broken: set[int] = set()
        self.started_at = time.monotonic() - 100
        self.metrics = Metrics(self.statuses, lambda: 7)
        self.balancer = self

    def statuses(self) -> list[BackendStatus]:
        return [self._status(number, state) for number, state in enumerate(self.states)]

    def _status(self, number: int, state: BackendState) -> BackendStatus:
        loaded = state is BackendState.READY
        return BackendStatus(
            name=f"slot-{number}",
            kind="local",
            models=("m",),
            state=state,
            is_replica=number in self.replicas,
            breaker="open" if number in self.broken else "closed",
            detail="" if loaded else "not yet",
            progress=1.0 if loaded else 0.5,
            inflight=2,
            info=INFO if loaded else None,
            stats=EngineStats(running=2) if loaded else None,
            eta_seconds=None if loaded else 3.0,
            restarts=2,
        )


@pytest.fixture
def house() -> StubHouse:
    return StubHouse()


@pytest.fixture
async def client(house: StubHouse) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.state.server = house
    app.include_router(system.router)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


S = BackendState


@pytest.mark.parametrize(
    ("states", "status"),
    [
        ([S.READY], "ok"),
        ([S.READY, S.STARTING], "ok"),
        ([S.READY, S.DRAINING, S.STOPPED], "ok"),
        ([S.READY, S.UNHEALTHY], "degraded"),
        ([S.FAILED, S.READY], "degraded"),
        ([S.STARTING], "unavailable"),
        ([S.STOPPED], "ok"),
        ([S.UNHEALTHY, S.DRAINING], "degraded"),
        ([], "unavailable"),
    ],
)
async def test_health_follows_from_the_backends(
    client: httpx.AsyncClient, house: StubHouse, states: list[BackendState], status: str
) -> None:
    house.states = states
    health, ready = await client.get("/v1/system/health"), await client.get("/readyz")
    serves = status != "unavailable"
    assert health.json()["status"] == status
    assert health.status_code == ready.status_code == (200 if serves else 503)
    assert ready.json()["status"] == ("ready" if serves else "not_ready")
    assert ("retry-after" in health.headers) == ("retry-after" in ready.headers) == (not serves)


async def test_replicas_at_rest_serve_nothing(client: httpx.AsyncClient, house: StubHouse) -> None:
    house.states = [S.FAILED, S.STOPPED, S.DRAINING]
    house.replicas = {1, 2}
    assert (await client.get("/readyz")).status_code == 503
    house.states = [S.FAILED, S.READY, S.STOPPED]
    assert (await client.get("/readyz")).status_code == 200
    assert (await client.get("/v1/system/health")).json()["status"] == "degraded"
    house.states = [S.STOPPED, S.STOPPED, S.STOPPED]
    assert (await client.get("/v1/system/health")).json()["status"] == "ok"


async def test_an_open_breaker_lets_nothing_through(client: httpx.AsyncClient, house: StubHouse) -> None:
    house.states = [S.READY, S.READY]
    house.broken = {0}
    assert (await client.get("/v1/system/health")).json()["status"] == "degraded"
    house.broken = {0, 1}
    assert (await client.get("/readyz")).status_code == 503


async def test_health_describes_each_backend(client: httpx.AsyncClient, house: StubHouse) -> None:
    house.states = [S.READY, S.STARTING]
    body = (await client.get("/v1/system/health")).json()
    assert body["version"] == __version__
    assert 100 <= body["uptime_seconds"] < 160
    assert body["backends"] == [
        {
            "name": "slot-0",
            "model": "m",
            "state": "ready",
            "progress": 1.0,
            "detail": "",
            "kind": "local",
            "inflight": 2,
            "engine": "fake",
            "context_length": 2048,
            "max_sequences": 8,
            "devices": ["cpu"],
            "eta_seconds": None,
            "restarts": 2,
        },
        {
            "name": "slot-1",
            "model": "m",
            "state": "starting",
            "progress": 0.5,
            "detail": "not yet",
            "kind": "local",
            "inflight": 2,
            "engine": None,
            "context_length": None,
            "max_sequences": None,
            "devices": [],
            "eta_seconds": 3.0,
            "restarts": 2,
        },
    ]


async def test_readiness_says_how_far_loading_is(client: httpx.AsyncClient, house: StubHouse) -> None:
    house.states = [S.STARTING]
    body = (await client.get("/readyz")).json()
    expected = {"name": "slot-0", "model": "m", "state": "starting", "progress": 0.5, "detail": "not yet"}
    assert body["backends"] == [expected]


async def test_the_process_lives_without_any_backend(client: httpx.AsyncClient, house: StubHouse) -> None:
    house.states = []
    response = await client.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_metrics_as_json(client: httpx.AsyncClient, house: StubHouse) -> None:
    house.metrics.for_model("m").first_token(0.1)
    body = (await client.get("/v1/system/metrics")).json()
    assert set(body) == set(house.metrics.snapshot()), "the schema dropped or invented a field"
    assert body["queue_depth"] == 7
    assert body["time_to_first_token"]["count"] == 1
    assert body["backends"][0]["running"] == 2


@pytest.mark.parametrize("kind", ["text/plain", "application/openmetrics-text"])
async def test_metrics_for_prometheus(client: httpx.AsyncClient, kind: str) -> None:
    response = await client.get("/metrics", headers={"Accept": kind})
    assert response.headers["content-type"].startswith(kind)
    assert response.headers["content-type"].count("charset") == 1
    assert "enginehouse_queue_depth 7.0" in response.text
