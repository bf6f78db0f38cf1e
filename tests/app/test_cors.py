"""A web page of an allowed origin reads every answer of every API, errors included."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from app.main import create_app
from app.settings import Settings

PAGE = "https://chat.example"
KEY = {"Authorization": "Bearer user"}
ASKED = {"Access-Control-Request-Headers": "authorization,content-type,anthropic-version,x-stainless-os"}
# It does not end by itself.
ENDLESS = "/v1/system/events"
# Of each API: a path, and what makes it answer with a stream.
STREAMS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "stream": True}),
    ("/v1/messages", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5, "stream": True}),
    ("/api/chat", {"messages": [{"role": "user", "content": "Hi"}]}),
]


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    folder: Path = tmp_path_factory.mktemp("models")
    chosen: dict[str, Any] = {"inference_engine": "fake", "model_base_path": folder, "ollama_api": True}
    chosen |= {"cors_origins": PAGE, "api_keys": "user", "max_request_bytes": 4096}
    app = create_app(Settings(_env_file=None, **chosen))
    # What nobody expected is answered inside of the layers that a page's browser needs.
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=30) as client,
    ):
        yield client


def is_readable(answer: httpx.Response) -> bool:
    return (
        answer.headers.get("access-control-allow-origin") == PAGE
        and "Origin" in answer.headers.get("vary", "")
        and (answer.request.method == "OPTIONS" or answer.headers["access-control-expose-headers"] == "*")
    )


async def test_every_route_may_be_asked_and_its_answer_be_read(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    asked = [(method.upper(), path) for path, item in paths.items() for method in item]
    asked += [("POST", "/v1/nowhere"), ("PUT", "/v1/chat/completions"), ("GET", "/api/nowhere")]
    assert len(asked) > 40
    unreadable = []
    for method, path in asked:
        path = path.replace("{", "").replace("}", "")
        preflight = {"Origin": PAGE, "Access-Control-Request-Method": method, **ASKED}
        allowed = await client.options(path, headers=preflight)
        if allowed.status_code != 200 or not is_readable(allowed):
            unreadable.append(f"preflight of {method} {path}")
        assert "anthropic-version" in allowed.headers["access-control-allow-headers"]
        for headers in ({}, KEY):  # 401 and what comes behind it; nothing in a body is right
            send = "HEAD" if path == ENDLESS else method
            answer = await client.request(send, path, headers={"Origin": PAGE, **headers}, content=b"[")
            if not is_readable(answer):
                unreadable.append(f"{answer.status_code} of {method} {path}")
        large = await client.request("POST", path, headers={"Origin": PAGE, **KEY}, content=b"x" * 5000)
        assert large.status_code == 413 or path == "/v1/files"  # which has a limit of its own
        assert is_readable(large)
    assert unreadable == []


@pytest.mark.parametrize(("path", "body"), STREAMS, ids=[path for path, _ in STREAMS])
async def test_streams_are_readable(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> None:
    model = (await client.get("/v1/models", headers=KEY)).json()["data"][0]["id"]
    answer = await client.post(path, headers={"Origin": PAGE, **KEY}, json={"model": model, **body})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith(("text/event-stream", "application/x-ndjson"))
    assert is_readable(answer)


async def test_a_failure_that_nobody_expected_is_readable(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("app.routers.ollama_models.OllamaVersion", fail)
    answer = await client.get("/api/version", headers={"Origin": PAGE, **KEY})
    assert (answer.status_code, set(answer.json())) == (500, {"error"})
    assert is_readable(answer)


async def test_other_pages_may_not(client: httpx.AsyncClient) -> None:
    preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    refused = await client.options("/api/chat", headers=preflight)
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers
