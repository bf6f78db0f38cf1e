"""What a web page can make a browser do: nothing, unless it is the server's own or was allowed."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI

from app import error_responses, middleware
from app.settings import Settings

PAGE = "https://evil.example"


def make_client(**settings: str) -> httpx.AsyncClient:
    app = FastAPI()
    error_responses.install(app)

    @app.api_route("/{path:path}", methods=["GET", "HEAD", "POST", "DELETE", "PUT"])
    async def anything() -> str:
        return "ok"

    middleware.install(app, Settings(_env_file=None, **settings))  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost:8000")


def code(response: httpx.Response) -> str | None:
    return None if response.status_code == 200 else str(response.json()["error"]["code"])


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8000", "127.3.2.1", "[::1]:8000"])
@pytest.mark.parametrize("path", ["/v1/models", "/healthz", "/metrics", "/docs"])
async def test_own_names_pass(host: str, path: str) -> None:
    async with make_client(host="127.0.0.1") as client:
        assert code(await client.get(path, headers={"Host": host})) is None


@pytest.mark.parametrize(
    "host", ["evil.example:8000", "localhost.evil.example", "10.0.0.1", "", "a@localhost"]
)
@pytest.mark.parametrize("path", ["/v1/models", "/healthz", "/metrics", "/docs"])
async def test_names_that_were_made_to_lead_here_do_not(host: str, path: str) -> None:
    async with make_client(host="127.0.0.1") as client:
        refused = await client.get(path, headers={"Host": host})
    assert (refused.status_code, code(refused)) == (403, "host_not_allowed")
    assert "ALLOWED_HOSTS" in refused.json()["error"]["message"]


async def test_every_host_header_counts() -> None:
    async with make_client(host="127.0.0.1") as client:
        twice = await client.get("/x", headers=[("Host", "localhost"), ("Host", "evil.example")])
    assert code(twice) == "host_not_allowed"


async def test_names_of_the_settings() -> None:
    async with make_client(host="127.0.0.1", allowed_hosts="llm.example,*.lan") as client:
        answers = [
            await client.get("/x", headers={"Host": host}) for host in ["LLM.example:1", "a.lan", "lan"]
        ]
    assert [code(each) for each in answers] == [None, None, "host_not_allowed"]


async def test_on_other_addresses_any_name_is_right_unless_some_are_set() -> None:
    async with make_client(host="0.0.0.0") as client:
        assert code(await client.get("/x", headers={"Host": "whatever"})) is None
    async with make_client(host="0.0.0.0", allowed_hosts="llm.example") as client:
        assert code(await client.get("/x", headers={"Host": "whatever"})) == "host_not_allowed"
        assert code(await client.get("/x", headers={"Host": "localhost"})) is None


@pytest.mark.parametrize("origin", [PAGE, "null", "http://localhost:3000", "http://localhost", "", "file://"])
@pytest.mark.parametrize("kind", ["text/plain", "application/json", "application/x-www-form-urlencoded"])
async def test_foreign_pages_change_nothing(origin: str, kind: str) -> None:
    headers = {"Origin": origin, "Content-Type": kind}
    async with make_client() as client:
        refused = await client.post("/v1/chat/completions", content=b"{}", headers=headers)
    assert (refused.status_code, code(refused)) == (403, "origin_not_allowed")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_whatever_the_method(method: str) -> None:
    async with make_client() as client:
        assert code(await client.request(method, "/v1/models/x", headers={"Origin": PAGE})) is not None


async def test_who_is_no_foreign_page_is_left_alone() -> None:
    async with make_client() as client:
        answers = [
            await client.post("/v1/x"),
            await client.post("/v1/x", headers={"Origin": "http://localhost:8000"}),
            await client.post("/v1/x", headers={"Origin": "https://a.lan", "Host": "a.lan"}),
            await client.get("/v1/models", headers={"Origin": PAGE}),
            # No page can send a key that the server did not allow to; an extension of the browser can.
            await client.post("/v1/x", headers={"Origin": PAGE, "Authorization": "Bearer unused"}),
            await client.post("/v1/x", headers={"Origin": PAGE, "x-api-key": "unused"}),
        ]
    assert [code(each) for each in answers] == [None] * 6
    assert not any("access-control-allow-origin" in each.headers for each in answers)


async def test_a_password_in_a_link_is_no_key() -> None:
    async with make_client() as client:
        headers = {"Origin": PAGE, "Authorization": "Basic dXNlcjpwYXNz"}
        assert code(await client.post("/v1/x", headers=headers)) == "origin_not_allowed"


async def test_origins_of_the_settings() -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    async with make_client(cors_origins="https://chat.example", api_keys="k") as client:
        for origin, allowed in [("https://chat.example", True), (PAGE, False)]:
            preflight = await client.options("/v1/x", headers={"Origin": origin, **asked})
            key = {"Authorization": "Bearer k"}
            answer = await client.post("/v1/x", headers={"Origin": origin, **key})
            assert (preflight.status_code == 200) is allowed
            assert ("access-control-allow-origin" in answer.headers) is allowed
        stranger = await client.post("/v1/x", headers={"Origin": "https://chat.example"})
        assert code(stranger) == "invalid_api_key"
        assert stranger.headers["access-control-allow-origin"] == "https://chat.example"
    async with make_client(cors_origins="*") as client:
        assert code(await client.post("/v1/x", headers={"Origin": PAGE})) is None
