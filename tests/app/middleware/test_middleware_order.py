from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI

from app import error_responses, middleware
from app.settings import Settings


async def test_each_refusal_comes_from_the_layer_that_stands_before_the_next() -> None:
    app = FastAPI()
    error_responses.install(app)
    settings = Settings(
        _env_file=None, api_keys="k", rate_limit_rpm=1, max_request_bytes=1024, allowed_hosts="test"
    )
    middleware.install(app, settings)
    transport = httpx.ASGITransport(app)
    key, page, other = {"Authorization": "Bearer k"}, {"Origin": "http://evil"}, {"Host": "evil"}
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        misled = await client.post("/v1/x", content=b"1" * 1025, headers=page | other)
        foreign = await client.post("/v1/x", content=b"1" * 1025, headers=page)
        large = await client.post("/v1/x", content=b"1" * 1025)
        stranger = await client.post("/v1/x")
        first = await client.post("/v1/x", headers=key)
        second = await client.post("/v1/x", headers=key)
    answers = [misled, foreign, large, stranger, first, second]
    assert [each.status_code for each in answers] == [403, 403, 413, 401, 404, 429]
    codes = [each.json()["error"]["code"] for each in answers[:2]]
    assert codes == ["host_not_allowed", "origin_not_allowed"]
    assert all(each.headers["x-request-id"].startswith("req_") for each in answers)
    counted = ["x-ratelimit-limit-requests" in each.headers for each in answers]
    assert counted == [False] * 4 + [True] * 2


def layers(**settings: str) -> list[str]:
    app = FastAPI()
    middleware.install(app, Settings(_env_file=None, **settings))  # type: ignore[arg-type]
    names = [str(each.cls.__name__) for each in app.user_middleware]  # type: ignore[attr-defined]
    return [name.removesuffix("Middleware") for name in names]


def test_layers_that_nobody_asked_for_are_not_there() -> None:
    assert layers() == ["RequestId", "Path", "OriginCheck", "BodyLimit", "Auth", "ContentEncoding", "Head"]
    everything = layers(cors_origins="*", rate_limit_rpm="1", allowed_hosts="a")
    guards = ["HostCheck", "OriginCheck", "CORS", "Failure", "BodyLimit", "Auth", "RateLimit"]
    assert everything == ["RequestId", "Path", *guards, "ContentEncoding", "Head"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.0.2", "::1"])
def test_on_the_loopback_address_the_name_is_checked(host: str) -> None:
    assert "HostCheck" in layers(host=host)
    assert "HostCheck" not in layers(host="192.168.1.2")
