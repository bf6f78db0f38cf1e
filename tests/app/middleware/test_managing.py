"""Who may manage a server: with keys their owners, without any only programs on its machine."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app import error_responses, middleware
from app.routers.admin import admin_only
from app.settings import Settings

LOCAL, LAN, DOCKER = "127.0.0.1", "192.168.1.7", "172.17.0.1"


def make_client(address: str, **settings: Any) -> httpx.AsyncClient:
    app = FastAPI()
    error_responses.install(app)

    @app.post("/v1/models/load", dependencies=[admin_only])
    async def manage() -> str:
        return "managed"

    @app.post("/v1/chat/completions")
    async def chat() -> str:
        return "answered"

    middleware.install(app, Settings(_env_file=None, **settings))
    transport = httpx.ASGITransport(app, client=(address, 1))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost:8000")


@pytest.mark.parametrize(
    ("address", "settings", "headers", "may_manage"),
    [
        (LOCAL, {}, {}, True),
        (LAN, {}, {}, False),
        (DOCKER, {}, {}, False),
        (LOCAL, {}, {"X-Forwarded-For": LAN}, False),
        (LOCAL, {}, {"Host": "evil.example"}, False),
        (LAN, {"host": "::"}, {}, False),
        (LAN, {"host": LAN}, {"Host": f"{LAN}:8000"}, True),  # the commands on its machine come from there
        (LAN, {"host": "192.168.1.8"}, {}, False),
        (LAN, {"open_admin": True}, {}, True),
        (LOCAL, {"host": "127.0.0.1", "trusted_proxies": LOCAL}, {"X-Forwarded-For": LAN}, False),
        (LOCAL, {"host": "127.0.0.1"}, {"X-Forwarded-For": LAN}, True),  # nobody else is let in
        (LAN, {"api_keys": "k"}, {"x-api-key": "k"}, True),
        (LAN, {"api_keys": "k", "admin_api_keys": "a"}, {"x-api-key": "k"}, False),
        (LAN, {"admin_api_keys": "a"}, {"x-api-key": "a"}, True),
        (LOCAL, {"admin_api_keys": "a"}, {}, False),
        (LOCAL, {"admin_api_keys": "a", "open_admin": True}, {}, False),
    ],
)
async def test_who_may_manage(
    address: str, settings: dict[str, Any], headers: dict[str, str], may_manage: bool
) -> None:
    async with make_client(address, **settings) as client:
        managed = await client.post("/v1/models/load", headers=headers)
        answered = await client.post("/v1/chat/completions", headers=headers)
    assert answered.status_code == 200
    assert managed.status_code == (200 if may_manage else 403)
    if not may_manage:
        assert managed.json()["error"]["code"] == "insufficient_scope"
        assert "ADMIN_API_KEYS" in managed.json()["error"]["message"]


async def test_who_is_not_local_is_told_what_to_do() -> None:
    async with make_client(LAN) as client:
        message = (await client.post("/v1/models/load")).json()["error"]["message"]
    assert "OPEN_ADMIN=true" in message
    assert "localhost" in message
