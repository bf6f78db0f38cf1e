from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI

from app.middleware.auth import AuthMiddleware
from app.middleware.rate_limit import RateLimitMiddleware, format_duration
from support.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


def make_client(clock: Clock, rpm: int) -> httpx.AsyncClient:
    app = FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "HEAD", "POST", "DELETE"])
    async def anything() -> str:
        return "ok"

    app.add_middleware(RateLimitMiddleware, rpm=rpm, clock=clock)
    app.add_middleware(AuthMiddleware, keys=["a", "b"])
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def test_requests_beyond_the_limit_are_429(clock: Clock) -> None:
    async with make_client(clock, rpm=6) as client:
        allowed = [await client.post("/v1/x", headers=bearer("a")) for _ in range(6)]
        refused = await client.post("/v1/x", headers=bearer("a"))
    assert [response.status_code for response in allowed] == [200] * 6
    remaining = [response.headers["x-ratelimit-remaining-requests"] for response in allowed]
    assert remaining == ["5", "4", "3", "2", "1", "0"]
    assert allowed[0].headers["x-ratelimit-limit-requests"] == "6"
    assert allowed[0].headers["x-ratelimit-reset-requests"] == "10s"
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert refused.headers["retry-after"] == "10"
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert refused.headers["x-ratelimit-reset-requests"] == "1m0s"


async def test_who_waited_as_told_is_served_again(clock: Clock) -> None:
    async with make_client(clock, rpm=7) as client:
        for _ in range(7):
            await client.post("/v1/x", headers=bearer("a"))
        refused = await client.post("/v1/x", headers=bearer("a"))
        clock.now += int(refused.headers["retry-after"]) - 1
        assert (await client.post("/v1/x", headers=bearer("a"))).status_code == 429
        clock.now += 1
        assert (await client.post("/v1/x", headers=bearer("a"))).status_code == 200


async def test_clients_do_not_share_a_bucket(clock: Clock) -> None:
    async with make_client(clock, rpm=1) as client:
        assert (await client.post("/v1/x", headers=bearer("a"))).status_code == 200
        assert (await client.post("/v1/x", headers=bearer("b"))).status_code == 200
        assert (await client.post("/v1/x", headers=bearer("a"))).status_code == 429


async def test_what_only_reads_is_counted_apart(clock: Clock) -> None:
    async with make_client(clock, rpm=1) as client:
        answers = [
            await client.post("/v1/x", headers=bearer("a")),
            await client.get("/v1/models", headers=bearer("a")),
            await client.get("/v1/models", headers=bearer("a")),
            await client.head("/v1/models", headers=bearer("a")),
            await client.delete("/v1/models/x", headers=bearer("a")),
        ]
    assert [each.status_code for each in answers] == [200, 200, 429, 429, 429]
    assert answers[2].headers["retry-after"] == "60"
    assert answers[2].headers["x-ratelimit-limit-requests"] == "1"


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/metrics", "/docs", "/v1/system/health", "/v1/system/metrics"]
)
async def test_probes_and_paths_outside_v1_are_free(clock: Clock, path: str) -> None:
    async with make_client(clock, rpm=1) as client:
        answers = [await client.get(path, headers=bearer("a")) for _ in range(3)]
    assert [each.status_code for each in answers] == [200] * 3
    assert not any("x-ratelimit-limit-requests" in each.headers for each in answers)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0171, "18ms"),
        (0.9999, "1s"),
        (1, "1s"),
        (1.2, "2s"),
        (59.00000000001, "59s"),
        (60, "1m0s"),
        (359.5, "6m0s"),
        (3600, "1h0m0s"),
        (3725, "1h2m5s"),
    ],
)
def test_durations_read_as_openai_writes_them(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
