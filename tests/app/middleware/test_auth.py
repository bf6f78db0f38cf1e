from __future__ import annotations

import hashlib

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette._utils import get_route_path

from app.middleware.auth import AuthMiddleware
from app.middleware.key_guesses import KeyGuesses
from app.paths import is_api


def make_client(*keys: str, address: tuple[str, int] = ("10.0.0.7", 1)) -> httpx.AsyncClient:
    app = FastAPI(openapi_url=None)

    @app.api_route("/{path:path}", methods=["GET", "POST", "OPTIONS"])
    async def anything(request: Request) -> str:
        client = request.state.client
        assert isinstance(client, str)
        return client

    app.add_middleware(AuthMiddleware, keys=keys)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, client=address), base_url="http://test")


@pytest.mark.parametrize("key", ["alpha", "beta"])
async def test_every_key_opens_and_names_the_client(key: str) -> None:
    async with make_client("alpha", "beta") as client:
        response = await client.post("/v1/x", headers={"Authorization": f"Bearer {key}"})
    assert response.status_code == 200
    assert response.json() == hashlib.sha256(key.encode()).hexdigest()[:8]


@pytest.mark.parametrize(
    "header",
    [None, "", "alpha", "Basic alpha", "Bearer", "Bearer ", "Bearer alph", "Bearer alphaa", "Bearer ALPHA"],
)
async def test_anything_else_is_401(header: str | None) -> None:
    async with make_client("alpha") as client:
        headers = {} if header is None else {"Authorization": header}
        response = await client.get("/v1/models", headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    error = response.json()["error"]
    assert (error["code"], error["type"]) == ("invalid_api_key", "authentication_error")


async def test_bytes_that_are_no_text_are_401() -> None:
    async with make_client("alpha") as client:
        response = await client.get("/v1/models", headers=[(b"authorization", b"Bearer \xff\xfe")])
    assert response.status_code == 401


async def test_the_scheme_may_be_in_any_case() -> None:
    async with make_client("alpha") as client:
        response = await client.get("/v1/models", headers={"Authorization": "bearer  alpha "})
    assert response.status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/v10/x"])
async def test_paths_outside_v1_are_open(path: str) -> None:
    async with make_client("alpha") as client:
        response = await client.get(path)
    assert response.json() == "10.0.0.7"


RIGHT, WRONG = b"alpha", b"nobody"


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ([(b"x-api-key", RIGHT)], True),
        ([(b"API-Key", RIGHT)], True),
        ([(b"authorization", b"BEARER " + RIGHT)], True),
        ([(b"authorization", b"Bearer " + WRONG), (b"x-api-key", RIGHT)], True),
        ([(b"authorization", b"Basic " + RIGHT), (b"x-api-key", RIGHT)], True),
        ([(b"x-api-key", WRONG)], False),
        ([(b"x-api-key", b"")], False),
        ([(b"x-api-key", b"Bearer " + RIGHT)], False),
        ([(b"x-api-key", WRONG), (b"x-api-key", RIGHT)], False),
        ([(b"x-goog-api-key", RIGHT)], False),
    ],
)
async def test_keys_come_in_the_headers_of_several_apis(
    headers: list[tuple[bytes, bytes]], passes: bool
) -> None:
    async with make_client("alpha") as client:
        response = await client.get("/v1/models", headers=headers)
    assert response.status_code == (200 if passes else 401)


async def test_every_wrong_key_of_a_request_counts_as_a_guess() -> None:
    app = FastAPI(openapi_url=None)
    app.add_middleware(AuthMiddleware, keys=["alpha"], guesses=KeyGuesses(4))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        wrong = {"Authorization": "Bearer a", "x-api-key": "b", "api-key": "c"}
        statuses = [(await client.get("/v1/x", headers=wrong)).status_code for _ in range(3)]
    assert statuses == [401, 401, 429]


async def test_a_preflight_request_passes() -> None:
    async with make_client("alpha") as client:
        assert (await client.options("/v1/chat/completions")).status_code == 200


async def test_without_keys_all_is_open_and_the_address_names_the_client() -> None:
    async with make_client() as client:
        response = await client.post("/v1/x", headers={"Authorization": "Bearer whatever"})
    assert response.json() == "10.0.0.7"


@pytest.mark.parametrize("root", ["", "/api", "/v1"])
@pytest.mark.parametrize(
    "path", ["/v1", "/v1/x", "/v1x", "/api/v1/x", "/apiv1/x", "/api", "/v1/v1/x", "/x/v1"]
)
def test_a_path_is_guarded_exactly_if_the_router_sees_an_api(root: str, path: str) -> None:
    scope = {"type": "http", "path": path, "root_path": root}
    routed = get_route_path(scope)
    assert is_api(scope) == (f"{routed}/".startswith(("/v1/", "/api/")))
