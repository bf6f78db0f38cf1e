"""Closed-loop load without randomness, for servers that do not all know ``ignore_eos``.

Each gets the same prompts at temperature 0, so all write the same answers, up to rounding. Tokens are
counted as the servers report them: an answer may end early.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice

from app.cli import load
from app.cli.load import cpu_seconds, event_loop_factory, percentile
from app.cli.stream import StreamedAnswer
from benchmarks.harness.processes import BenchError, BenchServer
from benchmarks.load.client import ask_all

TIMEOUT = 600.0


@dataclass(frozen=True, slots=True)
class GreedyPlan:
    """``prompt_words`` make prompts of about 64 tokens, the chat template not counted."""

    connections: int = 8
    requests: int = 48
    max_tokens: int = 128
    prompt_words: int = 32
    warmup_tokens: int = 8
    ignore_eos: bool = False


def measure(server: BenchServer, model: str, plan: GreedyPlan) -> dict[str, float]:
    """What the load came to, after a warm-up of the same shape. Raises `BenchError`."""
    with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
        return runner.run(_measure(server, model, plan))


async def _measure(server: BenchServer, model: str, plan: GreedyPlan) -> dict[str, float]:
    # As many at once as in the measurement: MLX compiles kernels for what it meets.
    warmup = replace(plan, requests=plan.connections, max_tokens=plan.warmup_tokens)
    await _run(server.url, bodies(model, warmup, seed=2), plan.connections)
    before, started = cpu_seconds(server.pid), time.perf_counter()
    answers = await _run(server.url, bodies(model, plan, seed=1), plan.connections)
    seconds = time.perf_counter() - started
    return summary(answers, seconds, cpu_seconds(server.pid) - before)


def bodies(model: str, plan: GreedyPlan, seed: int) -> list[bytes]:
    """The requests of ``plan``, whose prompts all differ; the same for every server."""
    wanted = load.LoadPlan(
        url="",
        model=model,
        max_tokens=plan.max_tokens,
        prompt_words=plan.prompt_words,
        ignore_eos=plan.ignore_eos,
        seed=seed,
    )
    sampled = islice(load.bodies(wanted), plan.requests)
    return [json.dumps({**json.loads(body), "temperature": 0}).encode() for body in sampled]


async def _run(url: str, requests: Iterable[bytes], connections: int) -> list[StreamedAnswer]:
    try:
        async with asyncio.timeout(TIMEOUT):
            return await ask_all(url, requests, connections)
    except TimeoutError:
        raise BenchError(f"the load did not end within {TIMEOUT:.0f} s") from None


def summary(answers: list[StreamedAnswer], seconds: float, cpu: float) -> dict[str, float]:
    """Rates over ``seconds`` of load, for which the server used ``cpu`` seconds. Raises `BenchError`."""
    good = [answer for answer in answers if answer.error is None]
    tokens = sum(answer.completion_tokens for answer in good)
    if not tokens:
        raise BenchError(f"no request succeeded: {answers[0].error if answers else 'none was sent'}")
    waits = [answer.first - answer.sent for answer in good if answer.first is not None]
    gaps = [pause for answer in good for pause in answer.pauses]
    values = {
        "tokens_per_s": tokens / seconds,
        "ttft_p50_ms": percentile(waits, 50),
        "itl_p50_ms": percentile(gaps, 50),
        "itl_p99_ms": percentile(gaps, 99),
        "cpu_us_per_token": 1e6 * cpu / tokens,
        "tokens_per_answer": tokens / len(good),
        "prompt_tokens": sum(answer.prompt_tokens for answer in good) / len(good),
        "errors": float(len(answers) - len(good)),
    }
    scale = {"ttft_p50_ms": 1e3, "itl_p50_ms": 1e3, "itl_p99_ms": 1e3}
    return {key: scale.get(key, 1.0) * value for key, value in values.items() if value is not None}
