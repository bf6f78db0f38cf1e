"""A child process that serves SmolLM2: the real server, but for the last test without the one that would
balance over it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from balancer.proxy.client import ProxyClient
from balancer.workers.protocol import WorkerSpec
from balancer.workers.worker import Worker
from benchmarks.harness.processes import free_port
from support.models import smollm2
from support.server import live_server

MESSAGES = [{"role": "user", "content": "Count from one to one hundred, in words."}]


@pytest.fixture
async def down() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def instance(down: asyncio.Event) -> AsyncIterator[Worker]:
    settings = {"context_length": 2048, "kv_cache_tokens": 4096, "max_cpu_threads": 1, "log_level": "WARNING"}
    spec = WorkerSpec("SmolLM2", 18600, "k", path=str(smollm2()), settings=settings)
    instance = await Worker.start(
        spec,
        "instance_0",
        proxy=(proxy := ProxyClient()),
        report=lambda *_: None,
        interval=0.5,
        grace=20.0,
        on_down=down.set,
    )
    yield instance
    await instance.close()
    await proxy.close()


@pytest.fixture
async def client(instance: Worker) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {instance.key}"}
    async with httpx.AsyncClient(base_url=instance.url, headers=headers, timeout=30) as client:
        yield client


def body(**fields: object) -> dict[str, object]:
    return {"model": "SmolLM2", "messages": MESSAGES, "temperature": 0, "max_tokens": 8, **fields}


async def test_it_serves_and_is_watched(instance: Worker, client: httpx.AsyncClient) -> None:
    assert instance.info.engine == "llama_cpp"
    assert 50 < instance.memory_mb < 2000
    answer = await client.post("/v1/chat/completions", json=body())
    assert answer.json()["usage"]["completion_tokens"] == 8
    refused = await client.post("/v1/chat/completions", json=body(), headers={"Authorization": "Bearer no"})
    assert refused.status_code == 401
    async with asyncio.timeout(10):
        while instance.stats().completion_tokens < 8:
            await asyncio.sleep(0.05)
    assert (await instance.health()).ok


async def test_closing_lets_an_answer_end(instance: Worker, client: httpx.AsyncClient) -> None:
    lines: list[str] = []
    wanted = body(stream=True, max_tokens=48, ignore_eos=True)
    async with client.stream("POST", "/v1/chat/completions", json=wanted) as answer:
        closing = None
        async for line in answer.aiter_lines():
            if line and closing is None:
                closing = asyncio.create_task(instance.close())
            lines += [line] if line else []
    assert closing is not None
    await closing
    assert lines[-1] == "data: [DONE]"
    assert json.loads(lines[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
    assert (await instance.health()).detail == "the process ended with status 0"


async def test_a_crash_is_noticed(instance: Worker, down: asyncio.Event) -> None:
    os.kill(instance.pid, signal.SIGSEGV)
    async with asyncio.timeout(5):
        await down.wait()
    assert (await instance.health()).detail.startswith("the process was killed by SIGSEGV")


def test_an_alias_of_its_file_is_the_one_model_that_it_has(tmp_path: Path) -> None:
    shutil.copy(smollm2(), tmp_path / "small.gguf")
    (tmp_path / "models.yaml").write_text(
        "models:\n  - name: Small\n    path: small.gguf\n    aliases: [little]\n"
    )
    names = ["Small", "little", "LITTLE", "small"]
    with live_server(
        model_base_path=tmp_path,
        default_model="little",
        inference_mode="load_balance",
        instance_kind="process",
        instance_port=free_port(),
        cluster_instances=1,
        auto_scaling=False,
        context_length=1024,
        max_cpu_threads=1,
    ) as server:
        for stream in (False, True):
            for name in names:
                asked = body(model=name, stream=stream)
                answer = httpx.post(f"{server.url}/v1/chat/completions", json=asked, timeout=60)
                assert (answer.status_code, answer.headers["x-enginehouse-backend"]) == (200, "instance_0")
        worker = server.house.manager.resident("Small")
        key = {"Authorization": f"Bearer {worker.key}"}
        models = httpx.get(f"{worker.url}/v1/models", headers=key).json()["data"]
        assert [model["id"] for model in models if model["state"] != "stopped"] == ["Small"]
