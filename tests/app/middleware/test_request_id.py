from __future__ import annotations

import re

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from structlog.contextvars import bind_contextvars, get_contextvars

from app.middleware.request_id import RequestIdMiddleware


def make_client() -> httpx.AsyncClient:
    app = FastAPI()

    @app.get("/")
    async def index(request: Request) -> dict[str, object]:
        return {"state": request.state.request_id, "log": get_contextvars()}

    @app.get("/relayed")
    async def relayed() -> Response:
        return Response(headers={"X-Request-Id": "of an upstream"})

    app.add_middleware(RequestIdMiddleware)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_a_request_gets_a_new_id() -> None:
    async with make_client() as client:
        first, second = await client.get("/"), await client.get("/")
    request_id = first.headers["x-request-id"]
    assert re.fullmatch(r"req_[0-9a-f]{24}", request_id)
    assert first.json() == {"state": request_id, "log": {"request_id": request_id}}
    assert second.headers["x-request-id"] != request_id


@pytest.mark.parametrize("given", ["a", "trace-1/2:3", "x" * 128])
async def test_a_sane_id_is_kept(given: str) -> None:
    async with make_client() as client:
        response = await client.get("/", headers={"x-request-id": given})
    assert response.headers["x-request-id"] == given
    assert response.json()["state"] == given


@pytest.mark.parametrize("given", [b"", b"x" * 129, b"a b", b"a\x00b", b"a\x1b[31m", "é".encode(), b"a\n"])
async def test_any_other_id_is_replaced(given: bytes) -> None:
    async with make_client() as client:
        response = await client.get("/", headers=[(b"x-request-id", given)])
    assert response.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(("path", "status"), [("/relayed", 200), ("/nowhere", 404)])
async def test_every_response_has_one_id_and_it_is_ours(path: str, status: int) -> None:
    async with make_client() as client:
        response = await client.get(path, headers={"x-request-id": "ours"})
    assert response.status_code == status
    assert response.headers.get_list("x-request-id") == ["ours"]


async def test_nothing_bound_for_another_request_is_left() -> None:
    bind_contextvars(model="of the last request")
    async with make_client() as client:
        response = await client.get("/")
    assert set(response.json()["log"]) == {"request_id"}
