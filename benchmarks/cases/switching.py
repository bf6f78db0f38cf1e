"""Two models and room for one: how long a request waits whose model is not the one that is loaded."""

from __future__ import annotations

import asyncio
import os
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

from app.cli.load import event_loop_factory, percentile
from benchmarks.harness import models as model
from benchmarks.harness import peers
from benchmarks.harness.case import Case, Run, Values, metrics
from benchmarks.harness.processes import BenchError, BenchServer
from benchmarks.harness.report import SUBJECT
from benchmarks.harness.servers import Bench, Need, subject
from benchmarks.load.client import ask, chat_body

QUESTION = "Tell me a story about a ship and its crew, with the sea and the weather in it."
NAMES = ("first", "second")
ANSWER_TOKENS = 4


def cases(bench: Bench) -> list[Case]:
    requests = bench.count(20, 4)
    keys = ("ttft_p50_ms", "ttft_p90_ms", "load_s", "unload_s")
    runs: dict[str, Run] = {SUBJECT: partial(_measure, bench, _ours(bench), requests)}
    if bench.peer is not None:
        for threads in bench.peer_threads:
            start = partial(peers.router, bench, threads)
            runs[f"router -t {threads}"] = partial(_measure, bench, start, requests)
    name = f"switch, {requests} requests for two models in turn"
    return [Case(name, metrics("switch", keys), runs)]


def _ours(bench: Bench) -> Callable[[Path], AbstractContextManager[BenchServer]]:
    @contextmanager
    def start(folder: Path) -> Iterator[BenchServer]:
        env = {"MODEL_BASE_PATH": str(folder), "DEFAULT_MODEL": NAMES[-1], "INFERENCE_MODE": "single"}
        with subject(bench, Need(same_cache=True, env=env)) as server:
            yield server

    return start


def _measure(
    bench: Bench, start: Callable[[Path], AbstractContextManager[BenchServer]], requests: int
) -> Values:
    with start(_models(bench)) as server, asyncio.Runner(loop_factory=event_loop_factory()) as runner:
        return runner.run(_alternate(server, requests))


def _models(bench: Bench) -> Path:
    """A folder with both models. Links to files elsewhere would not do: our server follows none."""
    folder = bench.out / "two-models"
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in zip(NAMES, (bench.gguf, model.gguf("Q8_0")), strict=True):
        target = folder / f"{name}.gguf"
        target.unlink(missing_ok=True)
        os.link(source, target)
    return folder


async def _alternate(server: BenchServer, requests: int) -> Values:
    for name in NAMES:  # once around, so that both files are in the page cache
        await _first_token(server, name)
    waits, loads, unloads = [], [], []
    for number in range(requests):
        waits.append(await _first_token(server, NAMES[number % 2]))
        if server.label == SUBJECT:
            loads.append(_status(server, NAMES[number % 2], "load_seconds"))
            unloads.append(_status(server, NAMES[(number + 1) % 2], "unload_seconds"))
    values = {"ttft_p50_ms": _percentile_ms(waits, 50), "ttft_p90_ms": _percentile_ms(waits, 90)}
    if loads:
        values |= {"load_s": statistics.median(loads), "unload_s": statistics.median(unloads)}
    return values


async def _first_token(server: BenchServer, name: str) -> float:
    """Seconds until the answer's first token. Raises `BenchError`."""
    answer = await ask(server.url, chat_body(name, QUESTION, ANSWER_TOKENS))
    if answer.error or answer.first is None:
        raise BenchError(f"a request for {name} failed: {answer.error or 'no text came'}")
    return answer.first - answer.sent


def _status(server: BenchServer, name: str, what: str) -> float:
    return float(server.get(f"/v1/models/{quote(name)}/status")[what] or 0.0)


def _percentile_ms(seconds: list[float], percent: float) -> float:
    value = percentile(seconds, percent)
    assert value is not None
    return 1e3 * value
