"""The end of the server itself, while streams run: told to end, and killed."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

import httpx
import psutil

from benchmarks.chaos.cluster import Operator, gone, send_signal
from benchmarks.chaos.faults import Scene
from benchmarks.chaos.streams import Transcript
from benchmarks.harness.processes import BenchError

GRACE = 90.0
# To end its children when the last answer is out.
TIDY_SECONDS = 10.0
MOST_ORPHANED_SECONDS = 2.0
STARTED_SECONDS = 60.0


async def terminate(scene: Scene) -> tuple[dict[str, Any], list[str], list[Transcript]]:
    """SIGTERM: what is in flight ends, nothing new begins, and no process stays."""
    operator, load = scene.operator, scene.load
    asked = scene.asked[: scene.inflight]
    answering = asyncio.create_task(load.once(asked, len(asked)))
    await _until_inflight(operator, len(asked))
    server, children = psutil.Process(operator.server.pid), operator.children()
    began = time.perf_counter()
    send_signal(server.pid, signal.SIGTERM)
    await asyncio.sleep(1.0)
    misses = [] if await _is_refused(operator.server.url) else ["a request was taken after SIGTERM"]
    answers = await answering
    ended = time.perf_counter() - began
    status = await asyncio.to_thread(server.wait, GRACE + TIDY_SECONDS)
    seconds = time.perf_counter() - began
    _, alive = gone(children, 0.0)
    if status != 0:
        misses.append(f"the exit status is {status}")
    if alive:
        misses.append(f"processes {alive} outlive the server")
    if len(answers) < len(asked):
        misses.append(f"{len(answers)} of {len(asked)} answers came")
    return {"last_answer_s": ended, "exit_s": seconds, "finished": len(answers)}, misses, answers


async def orphan(scene: Scene) -> tuple[dict[str, Any], list[str]]:
    """SIGKILL to the server: its children notice."""
    operator, asked = scene.operator, scene.asked[: scene.inflight]
    answering = asyncio.create_task(scene.load.once(asked, len(asked)))
    await _until_inflight(operator, len(asked))
    children = operator.children()
    send_signal(operator.server.pid, signal.SIGKILL)
    seconds, alive = await asyncio.to_thread(gone, children, TIDY_SECONDS)
    await answering  # with faults, of course
    misses = [] if seconds < MOST_ORPHANED_SECONDS else [f"children {alive} lived on for {seconds:.1f} s"]
    return {"children": len(children), "gone_s": seconds}, misses


async def _until_inflight(operator: Operator, count: int) -> None:
    end = time.monotonic() + STARTED_SECONDS
    while True:
        instances = (await operator.status())["instances"].values()
        if sum(each["inflight"] for each in instances) >= count:
            return
        if time.monotonic() > end:
            raise BenchError(f"{count} answers had not begun after {STARTED_SECONDS:.0f} s")
        await asyncio.sleep(0.05)


async def _is_refused(url: str) -> bool:
    async with httpx.AsyncClient(trust_env=False, timeout=5.0) as client:
        try:
            return (await client.get(f"{url}/readyz")).status_code == 503
        except httpx.TransportError:
            return True
