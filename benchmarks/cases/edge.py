"""What the HTTP side costs the processor: the fake engine answers, so that hardly anything else is in it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import repeat

from app.cli.load import cpu_seconds, event_loop_factory
from benchmarks.harness.processes import BenchError, BenchServer
from benchmarks.harness.report import solve_cost
from benchmarks.load.client import ask_all, chat_body

QUESTION = "Tell me a story about a ship and its crew, with the sea and the weather in it."


@dataclass(frozen=True, slots=True)
class EdgePlan:
    """Answers of ``typical`` tokens are reported; those of the other two lengths part the costs."""

    connections: int = 32
    typical: int = 200
    short: int = 16
    long: int = 256
    tokens: int = 80_000  # generated in all for each length: the clock of CPU time has steps of 10 ms
    most_requests: int = 1500


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds of the server for ``requests`` answers of ``length`` tokens."""

    length: float
    requests: int
    cpu: float
    frames: float

    @property
    def of_request(self) -> float:
        return self.cpu / self.requests


def measure(server: BenchServer, plan: EdgePlan) -> dict[str, float]:
    """CPU of the server process for answers of three lengths. Raises `BenchError`."""
    with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
        return runner.run(_measure(server, plan))


async def _measure(server: BenchServer, plan: EdgePlan) -> dict[str, float]:
    model = server.model()
    await _load(server, model, plan, plan.typical, 2 * plan.connections)  # warms up
    costs = [
        await _load(server, model, plan, length, min(plan.most_requests, plan.tokens // length))
        for length in (plan.short, plan.typical, plan.long)
    ]
    return summary(*costs)


def summary(short: Cost, typical: Cost, long: Cost) -> dict[str, float]:
    """Whole costs of the typical answer, and the parts that the two other lengths tell apart."""
    request, token = solve_cost((short.length, short.of_request), (long.length, long.of_request))
    costs = {"short": short, "typical": typical, "long": long}
    raw = {f"{name}_ms_per_request": 1e3 * cost.of_request for name, cost in costs.items()}
    frames = {f"{name}_frames_per_token": cost.frames / cost.length for name, cost in costs.items()}
    return {
        "cpu_us_per_token": 1e6 * typical.of_request / typical.length,
        "cpu_ms_per_request": 1e3 * typical.of_request,
        "own_us_per_token": 1e6 * token,
        "own_ms_per_request": 1e3 * request,
        "frames_per_token": typical.frames / typical.length,
        "cpu_us_per_frame": 1e6 * typical.of_request / typical.frames,
        **raw,
        **frames,
    }


async def _load(server: BenchServer, model: str, plan: EdgePlan, length: int, requests: int) -> Cost:
    body = chat_body(model, QUESTION, length, ignore_eos=True)
    before = cpu_seconds(server.pid)
    answers = await ask_all(server.url, repeat(body, requests), plan.connections)
    cpu = cpu_seconds(server.pid) - before
    if failed := next((answer.error for answer in answers if answer.error), None):
        raise BenchError(f"a request failed: {failed}")
    tokens = sum(answer.completion_tokens for answer in answers)
    return Cost(tokens / requests, requests, cpu, sum(len(answer.arrivals) for answer in answers) / requests)
