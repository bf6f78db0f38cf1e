"""Whose word counts for where a request came from, under the server that is run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from app.settings import Settings
from app.uvicorn_options import uvicorn_options
from support.live import LiveApp


async def _tell_client(scope: Scope, receive: Receive, send: Send) -> None:
    body = json.dumps([scope["client"][0], scope["scheme"]]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def seen(**settings: str) -> Iterator[httpx.Client]:
    options: dict[str, Any] = uvicorn_options(Settings(_env_file=None, **settings))  # type: ignore[arg-type]
    shared = {"log_config", "access_log"}
    app = LiveApp(_tell_client, lifespan="off", **{k: v for k, v in options.items() if k not in shared})
    app.start()
    try:
        with httpx.Client(base_url=app.url) as client:
            yield client
    finally:
        app.stop()


def test_by_default_nobody_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    with seen() as client:
        headers = {"X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "https"}
        assert client.get("/", headers=headers).json() == ["127.0.0.1", "http"]


@pytest.mark.parametrize(
    ("forwarded", "client_address"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("6.6.6.6, 1.2.3.4", "1.2.3.4"),
        ("6.6.6.6, 1.2.3.4, 10.9.9.9", "1.2.3.4"),
        ("2001:db8::1", "2001:db8::1"),
        ("6.6.6.6, [2001:db8::1]:77", "2001:db8::1"),
        ("6.6.6.6, 2001:db8::1, fd00::7", "2001:db8::1"),
        ("", "127.0.0.1"),
    ],
)
def test_trusted_proxies_are(forwarded: str, client_address: str) -> None:
    with seen(trusted_proxies="127.0.0.1, 10.1.2.3/8, fd00::/8") as client:
        answer = client.get("/", headers={"X-Forwarded-For": forwarded, "X-Forwarded-Proto": "https"})
        assert answer.json() == [client_address, "https"]


def test_others_are_not_believed_beside_them() -> None:
    with seen(trusted_proxies="10.0.0.0/8") as client:
        assert client.get("/", headers={"X-Forwarded-For": "1.2.3.4"}).json() == ["127.0.0.1", "http"]


def test_networks_of_ipv4_hold_for_sockets_that_take_both() -> None:
    options = uvicorn_options(Settings(_env_file=None, trusted_proxies="10.0.0.0/8"))  # type: ignore[arg-type]
    assert options["forwarded_allow_ips"] == ["10.0.0.0/8", "::ffff:10.0.0.0/104"]
