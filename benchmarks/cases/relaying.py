"""What a proxy's request costs: ours, vllm-router (Rust) and LiteLLM, each in front of the same server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial

from app.cli.load import cpu_seconds, event_loop_factory
from benchmarks.cases import held_streams, mock_upstream
from benchmarks.cases.mock_upstream import MODEL, ChunkPace
from benchmarks.harness import peers
from benchmarks.harness.case import Case, Run, Values, metrics
from benchmarks.harness.processes import BenchError, BenchServer
from benchmarks.harness.report import SUBJECT, Metric
from benchmarks.harness.servers import Bench, Need, subject
from benchmarks.load.client import RequestFailed, connect
from benchmarks.load.sdk_chats import SdkChat, Tally, chat, drive

ROUTES_TIMEOUT = 60.0
ANSWER_TIMEOUT = 30.0
STREAMS = 1000


@dataclass(frozen=True, slots=True)
class ProxyLoad:
    """Closed loop over ``connections``. ``pace`` is that of streamed answers; None: they are not streamed."""

    connections: int
    pace: ChunkPace | None = None

    @property
    def chat(self) -> SdkChat:
        return SdkChat(MODEL, self.pace.chunks if self.pace else 0)


@dataclass(frozen=True, slots=True)
class RelayPlan:
    """Every load ends after ``requests`` or after ``seconds``, whichever comes first."""

    requests: int = 8000
    seconds: float = 5.0
    warm_up: int = 64
    warm_up_seconds: float = 2.0


LOADS = {
    "json_1_ms": ProxyLoad(1),
    "json_32_ms": ProxyLoad(32),
    "stream_32_ms": ProxyLoad(32, ChunkPace(64)),
    # As from an engine that decodes 50 tokens a second: every chunk arrives by itself.
    "slow_stream_32_ms": ProxyLoad(32, ChunkPace(64, 0.02)),
}
Proxy = Callable[[Bench, str], AbstractContextManager[BenchServer]]


def cases(bench: Bench) -> list[Case]:
    plan = RelayPlan(requests=64, seconds=1.0) if bench.quick else RelayPlan()
    proxies: dict[str, Proxy] = {
        SUBJECT: ours, "vllm-router": peers.vllm_router, "litellm": peers.litellm,
    }  # fmt: skip
    runs: dict[str, Run] = {name: partial(_measure, bench, proxy, plan) for name, proxy in proxies.items()}
    lines = [metric for name in proxies if name != SUBJECT for metric in beside(name)]
    streams = bench.count(STREAMS, 50)
    pace = ChunkPace(2, 1.0 if bench.quick else 10.0)
    held = metrics("held streams", ("kb_per_stream", "held_mib"))
    return [
        Case("relaying", lines, runs),
        Case(f"{streams:,} streams held", held, {SUBJECT: partial(_hold, bench, streams, pace)}),
    ]


def beside(peer: str) -> list[Metric]:
    """The lines that compare with ``peer``, with targets of their own."""
    return [replace(metric, peer=peer) for metric in metrics(f"relaying beside {peer}", tuple(LOADS))]


def ours(bench: Bench, url: str) -> AbstractContextManager[BenchServer]:
    """This project's server in front of the one at ``url``; of its own it has the fake engine only."""
    env = {
        "UPSTREAMS": f"{url}/v1#model={MODEL}",
        "INFERENCE_ENGINE": "fake",
        "DEFAULT_MODEL": "auto",
        "MAX_CONCURRENT_REQUESTS": "2000",
        "MAX_QUEUED_REQUESTS": "2000",
    }
    return subject(bench, Need(env=env))


def _measure(bench: Bench, proxy: Proxy, plan: RelayPlan) -> Values:
    values: Values = {}
    with _behind(bench, proxy) as (upstream, server, runner):
        for key, each in LOADS.items():
            mock_upstream.set_pace(upstream, each.pace or ChunkPace())
            values |= runner.run(cost(server, each, plan, key))
    return values


def _hold(bench: Bench, streams: int, pace: ChunkPace) -> Values:
    held_streams.allow_files(4 * streams)
    with _behind(bench, ours) as (upstream, server, runner):
        runner.run(_drive(server, ProxyLoad(32, ChunkPace()), 256, 10.0))  # warms up
        mock_upstream.set_pace(upstream, pace)
        return runner.run(held_streams.measure(server, streams, pace))


@contextmanager
def _behind(bench: Bench, proxy: Proxy) -> Iterator[tuple[BenchServer, BenchServer, asyncio.Runner]]:
    """A fresh upstream, the proxy in front of it when it relays, and a loop for the client."""
    with (
        mock_upstream.upstream(bench) as upstream,
        proxy(bench, upstream.url) as server,
        asyncio.Runner(loop_factory=event_loop_factory()) as runner,
    ):
        runner.run(until_routed(server.url))
        yield upstream, server, runner


async def until_routed(url: str) -> None:
    """Returns when an answer came through: a proxy may be up before it knows its upstream.

    Raises `BenchError` if none comes.
    """
    wanted = SdkChat(MODEL)
    end = time.monotonic() + ROUTES_TIMEOUT
    while True:
        try:
            connection = await connect(url)
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT):
                    return await chat(connection, wanted.request(url), wanted)
            finally:
                connection.close()
        except (RequestFailed, OSError) as error:
            if time.monotonic() > end:
                raise BenchError(f"nothing was relayed: {error}") from None
        await asyncio.sleep(0.2)


async def cost(server: BenchServer, each: ProxyLoad, plan: RelayPlan, key: str) -> Values:
    """Milliseconds of CPU that ``server`` took for a request, as ``key``. Raises `BenchError`."""
    await _drive(server, each, plan.warm_up, plan.warm_up_seconds)
    before, started = cpu_seconds(server.pid), time.perf_counter()
    tally = await _drive(server, each, plan.requests, plan.seconds)
    cpu, seconds = cpu_seconds(server.pid) - before, time.perf_counter() - started
    return {
        key: 1e3 * cpu / tally.answers,
        f"{key}_answers": float(tally.answers),
        f"{key}_answers_per_s": tally.answers / seconds,
    }


async def _drive(server: BenchServer, each: ProxyLoad, requests: int, seconds: float) -> Tally:
    """Raises `BenchError` if a request fails."""
    try:
        async with asyncio.timeout(seconds + ANSWER_TIMEOUT):
            tally = await drive(server.url, each.chat, each.connections, requests, seconds)
    except TimeoutError:
        raise BenchError(f"a request had no answer after {ANSWER_TIMEOUT:.0f} s") from None
    if tally.errors or not tally.answers:
        raise BenchError(f"{tally.errors} of {tally.errors + tally.answers} requests failed: {tally.reason}")
    return tally
