"""What the APIs cost beside each other: the same answers of the fake engine, by each of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import repeat
from statistics import median
from typing import Any

from app.cli.load import cpu_seconds, event_loop_factory
from benchmarks.harness.processes import BenchError, BenchServer
from benchmarks.load.client import CHAT_PATH, CLOSING, RequestFailed, connect, post_request

# More words than any answer has: the fake engine says its prompt.
WORDS = "the ship and its crew sailed on through wind and rain until they saw the coast again "


@dataclass(frozen=True, slots=True)
class DialectsPlan:
    """Each API in turn, ``rounds`` times: what else the machine does then weighs on all of them."""

    connections: int = 32
    length: int = 200
    requests: int = 150
    rounds: int = 5


def requests_of(model: str, length: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """By API, the path and the body of a request for an answer of ``length`` tokens."""
    text = WORDS * (length // len(WORDS.split()) + 2)
    messages = [{"role": "user", "content": text}]
    common = {"model": model, "stream": True, "temperature": 0}
    response = {**common, "input": text, "max_output_tokens": length}
    return {
        "chat": (CHAT_PATH, {**common, "messages": messages, "max_tokens": length}),
        "responses": ("/v1/responses", {**response, "store": False}),
        "stored": ("/v1/responses", response),
        "messages": ("/v1/messages", {**common, "messages": messages, "max_tokens": length}),
    }


def measure(server: BenchServer, plan: DialectsPlan) -> dict[str, float]:
    """CPU of the server process for each API that it has. Raises `BenchError`."""
    with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
        return runner.run(_measure(server, plan))


async def _measure(server: BenchServer, plan: DialectsPlan) -> dict[str, float]:
    paths = server.get("/openapi.json")["paths"]
    asked = {
        name: (path, body)
        for name, (path, body) in requests_of(server.model(), plan.length).items()
        if path in paths
    }
    costs: dict[str, list[float]] = {name: [] for name in asked}
    for path, body in asked.values():  # warms up
        await _load(server, path, body, plan.connections, plan.connections)
    for _ in range(plan.rounds):
        for name, (path, body) in asked.items():
            before = cpu_seconds(server.pid)
            await _load(server, path, body, plan.requests, plan.connections)
            costs[name].append(cpu_seconds(server.pid) - before)
    return summary({name: median(each) / plan.requests / plan.length for name, each in costs.items()})


def summary(costs: Mapping[str, float]) -> dict[str, float]:
    """CPU seconds a token by API, as microseconds, and by those of the chat."""
    told = {f"{name}_us_per_token": 1e6 * cost for name, cost in costs.items()}
    return told | {f"{name}_by_chat": cost / costs["chat"] for name, cost in costs.items() if name != "chat"}


async def _load(
    server: BenchServer, path: str, body: Mapping[str, Any], requests: int, connections: int
) -> None:
    request = post_request(server.url, path, json.dumps(body).encode(), CLOSING)
    remaining: Iterator[bytes] = repeat(request, requests)

    async def work() -> None:
        for each in remaining:
            connection = await connect(server.url)
            try:
                await connection.post(each, _leave)
            finally:
                connection.close()

    try:
        await asyncio.gather(*(work() for _ in range(connections)))
    except (OSError, RequestFailed) as error:
        raise BenchError(f"a request to {path} failed: {error}") from error


def _leave(data: bytes) -> None:
    """What is in the answers does not matter here."""
