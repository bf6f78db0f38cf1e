"""The spelling of paths: all that clients send for a route reaches it, and none a way around the guards."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI, Request

from app import error_responses, middleware
from app.middleware.paths import canonical
from app.settings import Settings

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        (f"{CHAT}/", CHAT),
        ("//v1//chat///completions//", CHAT),
        ("/chat/completions", CHAT),
        ("/v1/v1/chat/completions", CHAT),
        ("/v1/v1/v1//completions/", "/v1/completions"),
        ("/completions", "/v1/completions"),
        ("/models/", "/v1/models"),
        ("/models/org/name/status", "/v1/models/org/name/status"),
        ("/openai/deployments/gpt-4o/chat/completions", CHAT),
        ("/openai/v1/models/", "/v1/models"),
        ("/openai/deployments/x/v1/models", "/v1/models"),
        ("/openai/deployments", "/openai/deployments"),
        ("/openai/v1", "/openai/v1"),
        ("/v1/health", "/health"),
        ("/docs/", "/docs"),
        ("/", "/"),
        ("//", "/"),
        ("/v1/", "/v1"),
        ("/v1/v1", "/v1"),
        ("/modelsx", "/modelsx"),
        ("/v1/v1x", "/v1/v1x"),
        ("/v1/models/v1/x", "/v1/models/v1/x"),
        ("/v1/v1x/v1/v1/x", "/v1/v1x/v1/v1/x"),
        ("/v1/cluster/upstreams/http://gpu1:8000", "/v1/cluster/upstreams/http://gpu1:8000"),
        ("/x/../v1/models", "/x/../v1/models"),
    ],
)
def test_each_path_has_one_spelling(asked: str, path: str) -> None:
    assert canonical(asked) == path
    assert canonical(path) == path


def test_a_long_path_takes_no_time() -> None:
    assert canonical("/v1" * 20_000 + "//" * 20_000) == "/v1"


@pytest.mark.parametrize("root", ["", "/api", "/v1"])
@pytest.mark.parametrize(
    "path",
    [
        *("/v1/models", "//v1/models", "/v1//models/", "/models", "/models/", "/v1/v1/models", "///models"),
        *("/v1/models/", "/v1/models/x/", "//models//x", "/api//v1/models", "/openai/v1/models"),
        *("/openai//deployments/x/models", "/openai/deployments/x/v1/models"),
        *("/%2fv1/models", "/v1%2F%2Fmodels"),  # slashes by the time that the app sees them
    ],
)
async def test_no_spelling_leads_around_the_guards(root: str, path: str) -> None:
    app = FastAPI(redirect_slashes=False)
    error_responses.install(app)

    @app.get("/v1/models")
    @app.get("/v1/models/{name:path}")
    async def models(request: Request) -> str:
        return request.url.path

    middleware.install(app, Settings(_env_file=None, api_keys="k", rate_limit_rpm=100))  # type: ignore[arg-type]
    transport = httpx.ASGITransport(app, root_path=root)
    async with httpx.AsyncClient(transport=transport) as client:
        stranger = await client.get(f"http://test{root}{path}")
        known = await client.get(f"http://test{root}{path}", headers={"Authorization": "Bearer k"})
    assert stranger.status_code in (401, 404), "the route answered who has no key"
    if known.status_code == 200:
        assert stranger.status_code == 401
        assert "x-ratelimit-limit-requests" in known.headers
        assert "//" not in known.json()
    if not path.startswith(("/api", "/openai")):
        assert known.status_code == 200
