from __future__ import annotations

import httpx
from fastapi import FastAPI

from app import errors, middleware
from app.settings import Settings


async def test_each_refusal_comes_from_the_layer_that_stands_before_the_next() -> None:
    app = FastAPI()
    errors.install(app)
    settings = Settings(_env_file=None, api_keys="k", rate_limit_rpm=1, max_request_bytes=1024)
    middleware.install(app, settings)
    transport = httpx.ASGITransport(app)
    key = {"Authorization": "Bearer k"}
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        large = await client.post("/v1/x", content=b"1" * 1025)
        stranger = await client.post("/v1/x")
        first = await client.post("/v1/x", headers=key)
        second = await client.post("/v1/x", headers=key)
    answers = [large, stranger, first, second]
    assert [each.status_code for each in answers] == [413, 401, 404, 429]
    assert all(each.headers["x-request-id"].startswith("req_") for each in answers)
    assert ["x-ratelimit-limit-requests" in each.headers for each in answers] == [False, False, True, True]


async def test_no_rate_limit_unless_set() -> None:
    app = FastAPI()
    middleware.install(app, Settings(_env_file=None))
    names = [str(each.cls.__name__) for each in app.user_middleware]  # type: ignore[attr-defined]
    assert names == ["RequestIdMiddleware", "BodyLimitMiddleware", "AuthMiddleware"]
