"""What goes wrong in the field does not reach clients: `make chaos`, in short. And clients that leave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from balancer.workers.protocol import STATUS_PATH
from balancer.workers.worker import Worker
from benchmarks.chaos import run as chaos
from benchmarks.harness.processes import free_port
from support.models import smollm2
from support.server import LiveServer, live_server, wait_until


def run(phases: str, tmp_path: Path, options: str = "") -> dict[str, Any]:
    """The figures of a chaos run that missed nothing."""
    common = ["--only", phases, "--model", str(smollm2()), "--out", str(tmp_path)]
    status = chaos.main([*common, *options.split()])
    report = json.loads((tmp_path / "chaos.json").read_text())
    assert not report["misses"]
    assert status == 0
    return cast(dict[str, Any], report["figures"])


def test_streams_outlive_instances_that_are_killed(tmp_path: Path) -> None:
    figures = run("kill", tmp_path, "--streams 24 --questions 32 --longest 70 --seconds 15")
    assert figures["kill"]["faults"] >= 2
    assert figures["kill"]["seams"] == figures["failovers"]["resumed"] > 0
    assert figures["failovers"]["broken"] == 0
    assert figures["kill"]["formed"] > 0


def test_a_server_that_is_told_to_end_ends_its_answers_first(tmp_path: Path) -> None:
    figures = run("terminate", tmp_path, "--streams 16 --longest 60")
    assert figures["terminate"]["finished"] == 16


def test_no_instance_outlives_a_server_that_is_killed(tmp_path: Path) -> None:
    assert run("orphan", tmp_path, "--streams 8 --longest 60")["orphan"]["children"] >= 3


def test_clients_that_do_not_read_or_leave_cost_nothing(tmp_path: Path) -> None:
    assert run("clients", tmp_path)["slow readers"]["slow_clients"] == 20


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    """One instance that is a process."""
    with live_server(
        default_model=str(smollm2()),
        inference_mode="load_balance",
        instance_kind="process",
        instance_port=free_port(),
        cluster_instances=1,
        auto_scaling=False,
        context_length=4096,
        max_sequences=1,
    ) as server:
        yield server


@pytest.mark.parametrize(
    ("place", "words"), [("streaming", 1), ("prefill", 2500), ("queued in the instance", 1)]
)
async def test_an_instance_drops_the_call_of_a_client_that_leaves(
    server: LiveServer, place: str, words: int
) -> None:
    await leave(server, "go " * words, behind=place == "queued in the instance", reads=place == "streaming")


async def leave(server: LiveServer, text: str, *, behind: bool, reads: bool) -> None:
    """The best of three: a busy machine may hold up the others."""
    model = server.house.default.name
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        others = [asyncio.create_task(abandoned(client, model, "in front"))] if behind else []
        took = []
        for turn in range(3):
            await until(server, lambda stats: stats["running"] + stats["waiting"] == len(others))
            before = (await figures(server))["completion_tokens"]
            call = asyncio.create_task(abandoned(client, model, f"{turn} {text}"))
            await until(server, lambda stats: stats["running"] + stats["waiting"] == len(others) + 1)
            if reads:
                await until(server, partial(says_more, before))
            call.cancel()
            took.append(await until(server, lambda stats: stats["running"] + stats["waiting"] == len(others)))
        for other in others:
            other.cancel()
        await until(server, lambda stats: stats["running"] + stats["waiting"] == 0)
    assert min(took) < 0.1
    assert server.house.balancer.running == 0


async def abandoned(client: httpx.AsyncClient, model: str, text: str) -> None:
    """A stream that is read until it is cancelled."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 1000,
        "ignore_eos": True,
        "stream": True,
    }
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        async for _ in response.aiter_bytes():
            pass


def says_more(before: int, stats: dict[str, Any]) -> bool:
    return bool(stats["completion_tokens"] > before)


async def until(server: LiveServer, condition: Callable[[dict[str, Any]], bool]) -> float:
    """Ask until ``condition`` holds for the figures of the instance's engine; the seconds it took."""
    return await asyncio.to_thread(wait_until, lambda: condition(asyncio.run(figures(server))), 30)


async def figures(server: LiveServer) -> dict[str, Any]:
    """What the child itself says, not what was last heard of it."""
    fleet = server.house.fleet
    process = cast(Worker, server.house.manager.resident(fleet.instances(fleet.models()[0])[0].key))
    # Certificates would take longer to load than what is measured here takes.
    async with httpx.AsyncClient(verify=False, headers={"authorization": f"Bearer {process.key}"}) as client:
        return cast(dict[str, Any], (await client.get(process.url + STATUS_PATH)).json()["stats"])
