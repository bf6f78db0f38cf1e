"""The log of requests: one line each, as JSON and for people; and that of loads."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.main import create_app
from app.settings import Settings
from app.telemetry import load_log, logs
from app.telemetry.load_log import LoadLog
from engines.base import EngineInfo
from engines.lifecycle.events import EventHub
from engines.lifecycle.states import ModelEvent, ModelState, ModelStatus
from engines.machine.footprint import Footprint

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "one two three four five"}]
READY_LINE = {
    "version", "model", "engine", "devices", "context_length", "memory", "urls", "docs", "chat", "curl",
}  # fmt: skip


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(Settings(_env_file=None, inference_engine="fake", model_base_path=tmp_path))
    async with app.router.lifespan_context(app):
        await app.state.server.manager.load("fake", pin=True)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://localhost"
        ) as client:
            yield client


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_inference_has_one_line_of_the_agreed_shape(
    client: httpx.AsyncClient, stream: io.StringIO, streamed: bool
) -> None:
    logs.configure("DEBUG", "json", stream)
    body = {"model": "fake", "messages": HELLO, "max_tokens": 6, "stream": streamed}
    await client.post(CHAT, json=body, headers={"x-request-id": "abc"})
    [line] = [each for each in lines(stream) if each["module"] in ("inference_engine", "http")]
    assert list(line) == ["timestamp", "level", "module", "event", "data"]
    assert (line["module"], line["event"]) == ("inference_engine", "model_inference")
    agreed = ["model_name", "prompt_tokens", "completion_tokens", "total_tokens", "inference_time"]
    agreed += ["tokens_per_second", "gpu_memory_used", "request_id"]
    assert list(line["data"]) == agreed
    assert line["data"]["request_id"] == "abc"


async def test_any_other_request_has_one_too_but_probes_only_for_debugging(
    client: httpx.AsyncClient, stream: io.StringIO
) -> None:
    logs.configure("INFO", "json", stream)
    for path in ("/healthz", "/readyz", "/metrics", "/v1/models/fake/status", "/v1/cluster/status"):
        await client.get(path)
    await client.head("/")
    assert stream.getvalue() == ""
    await client.get("/v1/models?key=secret")
    await client.get("/no%0Asuch%1B[2J")
    await client.post(CHAT, json={"model": "no-such", "messages": HELLO})
    found = [(each["data"]["method"], each["data"]["path"], each["data"]["status"]) for each in lines(stream)]
    assert found == [("GET", "/v1/models", 200), ("GET", "/no%0Asuch%1B%5B2J", 404), ("POST", CHAT, 404)]
    assert {each["module"] for each in lines(stream)} == {"http"}
    logs.configure("DEBUG", "json", stream)
    await client.get("/healthz")
    assert [each["level"] for each in lines(stream) if each["module"] == "http"][3:] == ["DEBUG"]


async def test_people_see_a_request_in_a_few_words(client: httpx.AsyncClient, stream: io.StringIO) -> None:
    logs.configure("INFO", "text", stream)
    await client.post(CHAT, json={"model": "fake", "messages": HELLO, "max_tokens": 6})
    await client.get("/v1/models")
    await client.post(CHAT, json={"model": "fake", "messages": HELLO, "max_tokens": "x"})
    first, second, third = (line.split("] ", 1)[1] for line in stream.getvalue().splitlines())
    assert first.startswith(f"POST {CHAT} 200 fake 8+6 tokens, ")
    assert first.split(", ")[1].endswith(" tok/s")
    assert first.rstrip().endswith(" ms")
    assert second.startswith("GET /v1/models 200 ")
    assert third.startswith(f"POST {CHAT} 400 ")


def status(state: ModelState, **more: Any) -> ModelStatus:
    return ModelStatus("m", state, **more)


async def test_a_load_is_told_while_it_lasts_and_once_when_it_is_there(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_log, "PROGRESS_SECONDS", 0.001)
    monkeypatch.setattr(load_log, "_LISTENING_SECONDS", 0.0)
    now = [status(ModelState.LOADING, phase="loading", progress=0.42, eta_seconds=12.3)]
    events = EventHub()
    log = LoadLog(Settings(_env_file=None, host="127.0.0.1"), "m", lambda: now, events)
    logs.configure("INFO", "json", stream)
    tasks = [asyncio.create_task(each) for each in (log.keep_telling(), log.tell_when_ready())]
    while len(lines(stream)) < 2:
        await asyncio.sleep(0.001)
    assert lines(stream)[1]["data"] == {"model": "m", "phase": "loading", "percent": 42, "eta_seconds": 12}
    logs.configure("INFO", "text", stream)
    stream.truncate(stream.seek(0))
    while not stream.getvalue():
        await asyncio.sleep(0.001)
    assert "] loading m: 42 %, 12 s left" in stream.getvalue()

    logs.configure("INFO", "json", stream)
    info = EngineInfo("llama_cpp", "m", 8192, 8, ("cpu",))
    now[0] = status(ModelState.READY, info=info, memory=Footprint(ram=2**30))
    stream.truncate(stream.seek(0))
    events.publish(ModelEvent("m", ModelState.LOADING, ModelState.READY, 0.0))
    await tasks[1]
    tasks[0].cancel()
    [ready] = [each for each in lines(stream) if each["event"] == "ready"]
    assert set(ready["data"]) == READY_LINE
    assert (ready["module"], ready["data"]["memory"]) == ("app", "1.0 GiB")
    assert events.listeners == 0

    logs.configure("INFO", "text", stream)
    stream.truncate(stream.seek(0))
    logs.get_logger("app").info("ready", **ready["data"])
    block = stream.getvalue().splitlines()
    assert block[1].endswith("is ready: m (llama_cpp on cpu, context 8,192 tokens, 1.0 GiB)")
    assert [line.split()[0] for line in block[2:] if line] == ["open", "API", "docs", "chat", "curl"]
    assert "chat --url http://127.0.0.1:8000" in stream.getvalue()
