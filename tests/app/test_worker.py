"""The app of an instance, in this process and with the fake engine."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Mount, Route

from app import worker as instance
from app.worker import create_worker_app, worker_settings
from balancer.workers.ports import listen
from balancer.workers.protocol import (
    PARENT_HEADER,
    RESUME_HEADER,
    STATUS_PATH,
    Message,
    Start,
    WorkerSpec,
    info_from,
)
from engines.fake import FakeEngine
from engines.models.catalog import FOREVER
from support.gguf import FILE

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
KEY = {"Authorization": "Bearer k"}


def spec(tmp_path: Path, **settings: Any) -> WorkerSpec:
    own = {"inference_engine": "fake", "model_base_path": str(tmp_path), "log_level": "WARNING", **settings}
    return WorkerSpec("m", 8001, "k", settings=own)


class Died(Exception):
    """In the place of the process's end."""


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    def die(status: int) -> None:
        raise Died(status)

    monkeypatch.setattr(instance.os, "_exit", die)
    return []


@pytest.fixture
async def app(tmp_path: Path, sent: list[Message]) -> AsyncIterator[FastAPI]:
    app = create_worker_app(spec(tmp_path), sent.append)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://127.0.0.1:8001", headers=KEY
    ) as client:
        yield client


async def ready(sent: list[Message]) -> None:
    async with asyncio.timeout(10):
        while not any("ready" in message for message in sent):
            await asyncio.sleep(0.005)


async def test_it_tells_its_parent_when_it_is_ready(app: FastAPI, sent: list[Message]) -> None:
    await ready(sent)
    info = info_from(json.loads(json.dumps(sent[-1]))["ready"])
    assert (info.engine, info.model, info.context_length) == ("fake", "m", 8192)


async def test_status_is_for_who_has_the_key(
    app: FastAPI, client: httpx.AsyncClient, sent: list[Message]
) -> None:
    await ready(sent)
    report = (await client.get(STATUS_PATH)).json()
    assert report["ok"]
    assert report["stats"]["running"] == 0
    assert report["metrics"] == {}
    assert (await client.get(STATUS_PATH, headers={"Authorization": "Bearer x"})).status_code == 401
    engine = app.state.server.manager.resident("m")
    assert isinstance(engine, FakeEngine)
    engine.healthy = False
    assert not (await client.get(STATUS_PATH)).json()["ok"]


async def test_no_route_answers_who_has_no_key(app: FastAPI, sent: list[Message]) -> None:
    await ready(sent)
    paths = {route.path for route in app.routes if isinstance(route, Route | Mount)}  # type: ignore[attr-defined]
    assert {"/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/static/docs", STATUS_PATH} <= paths
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8001") as stranger:
        for path in {*paths, "/", "/static/docs/swagger-ui.css", "/nowhere"}:
            for method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS"):
                answer = await stranger.request(method, path, headers={"Authorization": "Bearer x"})
                assert answer.status_code == 401, f"{method} {path}"


async def test_nobody_can_keep_its_parent_out(client: httpx.AsyncClient, sent: list[Message]) -> None:
    await ready(sent)
    for _ in range(100):
        await client.get(STATUS_PATH, headers={"Authorization": "Bearer x"})
    assert (await client.get(STATUS_PATH)).status_code == 200


async def test_it_answers(client: httpx.AsyncClient, sent: list[Message]) -> None:
    await ready(sent)
    body = {"model": "m", "prompt": "to be", "keep_alive": 0}
    answer = (await client.post("/v1/completions", json=body)).json()
    assert answer["choices"][0]["text"] == "to be"
    # Even so it stays: that is the parent's to decide.
    assert (await client.get(STATUS_PATH)).json()["ok"]


@pytest.mark.parametrize(
    ("size", "body"),
    [("x", b"{}"), ("2", b"{}{}"), ("2", b"[]{}"), ("9", b"{}"), ("2", b""), (str(10**400), b"{}")],
)
async def test_what_is_no_resume_point_is_refused(
    client: httpx.AsyncClient, sent: list[Message], size: str, body: bytes
) -> None:
    await ready(sent)
    headers = {PARENT_HEADER.decode(): "1", RESUME_HEADER.decode(): size}
    answer = await client.post("/v1/completions", content=body, headers=headers)
    assert answer.status_code == 400
    assert "no resume point" in answer.json()["error"]["message"]


async def test_it_ends_when_its_engine_fails(app: FastAPI, sent: list[Message]) -> None:
    await ready(sent)
    house = app.state.server
    engine = house.manager.resident("m")
    engine.healthy = False
    house.manager.look("m")
    async with asyncio.timeout(10):
        while "failed" not in sent[-1]:
            await asyncio.sleep(0.005)
    assert sent[-1] == {"failed": "told to be unhealthy", "kind": "ModelLoadError"}


async def test_a_load_that_fails_is_told(tmp_path: Path, sent: list[Message]) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(FILE)
    settings = {"inference_engine": "llama_cpp", "model_base_path": str(tmp_path)}
    app = create_worker_app(WorkerSpec("m", 8001, "k", str(broken), settings), sent.append)
    broken.write_bytes(FILE[:40])
    async with app.router.lifespan_context(app), asyncio.timeout(10):
        while not sent:
            await asyncio.sleep(0.005)
    assert "broken.gguf is cut off" in sent[-1]["failed"]


def test_settings_of_an_instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"UPSTREAMS": "http://b:1/v1", "API_KEYS": "other", "MAX_SEQUENCES": "7"}.items():
        monkeypatch.setenv(name, value)
    given = {"inference_mode": "load_balance", "context_length": 512, "max_sequences": 3, "keep_alive": "5m"}
    settings = worker_settings(spec(tmp_path, **given))
    assert settings.inference_mode == "single"
    assert settings.upstreams == ""
    assert settings.api_keys == {"k"}
    assert settings.context_length == 512
    assert settings.max_sequences == 3
    assert (settings.host, settings.port) == ("127.0.0.1", 8001)
    assert float(settings.keep_alive) == FOREVER


class Child:
    """The real thing, with the pipes in our hands."""

    def __init__(self, spec: WorkerSpec) -> None:
        with listen(18500) as listener:
            self.port = listener.getsockname()[1]
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.worker"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(listener.fileno(),),
            )
            assert self.process.stdin is not None
            self.process.stdin.write(Start(spec, listener.fileno()).to_line())
            self.process.stdin.flush()

    def message(self) -> Message:
        assert self.process.stdout is not None
        return dict(json.loads(self.process.stdout.readline()))

    def end(self) -> int:
        """Its exit status; all its output is taken."""
        self.process.communicate(timeout=10)
        return self.process.returncode


@pytest.fixture
def child(tmp_path: Path) -> Child:
    child = Child(spec(tmp_path))
    while "ready" not in child.message():
        pass
    return child


def test_sigterm_ends_it_in_good_order(child: Child) -> None:
    assert httpx.get(f"http://127.0.0.1:{child.port}{STATUS_PATH}", headers=KEY).json()["ok"]
    child.process.send_signal(signal.SIGTERM)
    assert child.process.wait(10) == 0
    child.end()


def test_it_ends_with_its_life_line(child: Child) -> None:
    assert child.end() == 1  # which closes stdin first


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    settings = {"model_base_path": str(tmp_path), "log_level": "WARNING"}
    child = Child(WorkerSpec("m", 8001, "k", path=str(tmp_path / "m.gguf"), settings=settings))
    message = child.message()
    assert message["kind"] == "ModelFileNotFound"
    assert "m.gguf" in message["failed"]
    assert child.end() == 1
