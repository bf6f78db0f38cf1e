"""Clients that do not read, and clients that leave: what they cost the server, and who notices when."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from benchmarks.chaos.cluster import Operator
from benchmarks.chaos.streams import Question, StreamLoad
from benchmarks.chaos.upstream import MODEL, SILENT, EndlessUpstream, Visit
from benchmarks.harness import memory
from benchmarks.harness.processes import BenchError, BenchServer
from benchmarks.load.client import CHAT_PATH, JSON, post_request

SLOW_CLIENTS = 20
# Places for requests: the slow clients and one more.
PLACES = SLOW_CLIENTS + 1
ENDLESS = 10_000_000
# What each may hold: what is on its way to it, in both directions, and the buffers of sockets beside it.
MOST_MIB_EACH = 1.0
MOST_NOTICE_SECONDS = 0.1
PATIENCE = 10.0


def settings(url: str) -> dict[str, str]:
    """Of a server in front of the upstream at ``url``; of its own it has the fake engine only."""
    return {
        "UPSTREAMS": f"{url}/v1#model={MODEL}",
        "INFERENCE_ENGINE": "fake",
        "DEFAULT_MODEL": "auto",
        "MAX_CONCURRENT_REQUESTS": str(PLACES),
    }


async def slow(
    server: BenchServer, upstream: EndlessUpstream, load: StreamLoad
) -> tuple[dict[str, Any], list[str]]:
    """Clients that read nothing of long streams, and one among them that does."""
    await _until_routed(load)
    before = memory.unique(server.pid)
    first = len(upstream.visits)
    with ExitStack() as clients:
        for _ in range(SLOW_CLIENTS):
            clients.enter_context(client(server, "go on", ENDLESS))
        await _until(lambda: _true(len(upstream.visits) == first + SLOW_CLIENTS))
        await _until_still(upstream.visits[first:])
        beside = await load.ask(_question(1000))
        grown = (memory.unique(server.pid) - before) / memory.MIB
        sent = [visit.sent / memory.MIB for visit in upstream.visits[first : first + SLOW_CLIENTS]]
    misses = [f"beside slow readers: {fault}" for fault in beside.faults]
    if grown > SLOW_CLIENTS * MOST_MIB_EACH:
        misses.append(f"{SLOW_CLIENTS} clients that do not read cost {grown:.1f} MiB")
    figures = {
        "slow_clients": SLOW_CLIENTS,
        "grown_mib": grown,
        "taken_from_upstream_mib_each": max(sent),
        "beside_s": beside.ended - beside.sent,
    }
    return figures, misses


async def leave(
    server: BenchServer, upstream: EndlessUpstream, operator: Operator
) -> tuple[dict[str, Any], list[str]]:
    """Clients that disconnect in the middle of a stream, before its first byte, and in the queue."""
    figures = {
        "notice_streaming_s": await _best(lambda: _leave(server, upstream, "go on")),
        "notice_prefill_s": await _best(lambda: _leave(server, upstream, SILENT)),
        "notice_queued_s": await _best(lambda: _leave_queue(server, upstream, operator)),
    }
    late = [name for name, seconds in figures.items() if seconds > MOST_NOTICE_SECONDS]
    return figures, [f"{name} is {figures[name]:.3f}" for name in late]


@contextmanager
def client(server: BenchServer, text: str, tokens: int) -> Iterator[socket.socket]:
    """One that sends its request, and reads nothing."""
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        body = json.dumps(_question(tokens, text).body).encode()
        connection.sendall(post_request(server.url, CHAT_PATH, body, JSON))
        yield connection


async def _leave(server: BenchServer, upstream: EndlessUpstream, text: str) -> float:
    """Seconds until the upstream is left when its client's client leaves."""
    first = len(upstream.visits)
    with client(server, text, ENDLESS):
        await _until(lambda: _true(len(upstream.visits) > first))
        await asyncio.sleep(0.2)
    left = time.perf_counter()
    return await asyncio.wait_for(upstream.visits[first].left, PATIENCE) - left


async def _leave_queue(server: BenchServer, upstream: EndlessUpstream, operator: Operator) -> float:
    """Seconds until a call that waits is out of the queue."""
    first = len(upstream.visits)
    with ExitStack() as busy:
        for _ in range(PLACES):
            busy.enter_context(client(server, SILENT, 1))
        await _until(lambda: _true(len(upstream.visits) == first + PLACES))
        with client(server, SILENT, 1):
            await _until(lambda: _has_depth(operator, 1))
        left = time.perf_counter()
        await _until(lambda: _has_depth(operator, 0))
        seconds = time.perf_counter() - left
    await asyncio.gather(*(asyncio.wait_for(visit.left, PATIENCE) for visit in upstream.visits[first:]))
    return seconds


async def _best(measure: Callable[[], Awaitable[float]]) -> float:
    """Of three: a busy machine may hold up the others."""
    return min([await measure() for _ in range(3)])


async def _has_depth(operator: Operator, depth: int) -> bool:
    return bool((await operator.status())["queue_depth"] == depth)


async def _true(value: bool) -> bool:
    return value


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    end = time.monotonic() + PATIENCE
    while not await condition():
        if time.monotonic() > end:
            raise BenchError(f"what was to happen did not within {PATIENCE:.0f} s")
        await asyncio.sleep(0.002)


async def _until_still(visits: list[Visit]) -> None:
    """Nothing moves any more: all buffers on the way are full."""
    before, end = -1, time.monotonic() + PATIENCE
    while (now := sum(visit.sent for visit in visits)) != before:
        if time.monotonic() > end:
            raise BenchError("an upstream is still read although its client reads nothing")
        before = now
        await asyncio.sleep(0.5)


async def _until_routed(load: StreamLoad) -> None:
    """The server looks at its upstreams when it has started."""
    end = time.monotonic() + PATIENCE
    while (answer := await load.ask(_question(10))).faults:
        if time.monotonic() > end:
            raise BenchError(f"nothing was relayed: {answer.faults}")
        await asyncio.sleep(0.2)


def _question(tokens: int, text: str = "go on") -> Question:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return Question(0, CHAT_PATH, body)
