"""Streams that are open at once and mostly idle: whether all end well, and what memory each takes."""

from __future__ import annotations

import asyncio

from benchmarks.cases.mock_upstream import MODEL, ChunkPace
from benchmarks.harness import memory
from benchmarks.harness.processes import BenchError, BenchServer
from benchmarks.load.client import ClientConnection, RequestFailed, connect
from benchmarks.load.sdk_chats import SdkChat, chat

# Opened at once; more than a listening socket's queue holds would be refused.
OPENING = 64
END_TIMEOUT = 120.0


def allow_files(count: int) -> None:
    """Let this process, and those that it starts, open so many files. Raises `BenchError`."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise BenchError(f"{count} open files are needed, and the limit is {hard}: ulimit -Hn")
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


async def measure(server: BenchServer, streams: int, pace: ChunkPace) -> dict[str, float]:
    """Hold ``streams`` answers of ``pace`` through ``server``. Raises `BenchError` if one of them fails.

    Memory is read between events, when nothing moves: after the first event and after the second.
    """
    wanted = SdkChat(MODEL, pace.chunks)
    before = memory.unique(server.pid)
    connections = await _open(server.url, streams)
    try:
        answers = [asyncio.ensure_future(_ask(each, server.url, wanted)) for each in connections]
        held = await _held(server, connections, pace)
        reasons = list(filter(None, await asyncio.wait_for(asyncio.gather(*answers), END_TIMEOUT)))
    except TimeoutError:
        raise BenchError(f"not all streams had ended after {END_TIMEOUT:.0f} s") from None
    finally:
        for connection in connections:
            connection.close()
    if reasons:
        raise BenchError(f"{len(reasons)} of {streams} streams failed: {reasons[0]}")
    return {
        "kb_per_stream": (held - before) / streams / 1e3,
        "held_mib": held / memory.MIB,
        "before_mib": before / memory.MIB,
    }


async def _open(url: str, count: int) -> list[ClientConnection]:
    connections: list[ClientConnection] = []
    try:
        while len(connections) < count:
            batch = min(OPENING, count - len(connections))
            connections += await asyncio.gather(*(connect(url) for _ in range(batch)))
    except OSError as error:
        raise BenchError(f"connection {len(connections) + 1} was refused: {error}") from None
    return connections


async def _ask(connection: ClientConnection, url: str, wanted: SdkChat) -> str:
    """Why the stream failed; "" if it did not."""
    try:
        await chat(connection, wanted.request(url), wanted)
    except RequestFailed as error:
        return str(error)
    return ""


async def _held(server: BenchServer, connections: list[ClientConnection], pace: ChunkPace) -> int:
    """The most memory that the server had while all streams were open. Raises `BenchError`."""
    begun = [asyncio.ensure_future(connection.begun.wait()) for connection in connections]
    _, waiting = await asyncio.wait(begun, timeout=pace.pause)
    for task in waiting:
        task.cancel()
    if waiting:
        raise BenchError(f"{len(waiting)} of {len(begun)} streams had not begun after {pace.pause:.0f} s")
    held = []
    for _ in range(2):
        await asyncio.sleep(pace.pause / 2)
        held.append(memory.unique(server.pid))
        await asyncio.sleep(pace.pause / 2)
    return max(held)
