"""Instances that are killed, stopped, restarted, added and taken away while streams run over them."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks.chaos.cluster import CHECK_SECONDS, INSTANCES, Operator, Seen, send_signal
from benchmarks.chaos.streams import Question, StreamLoad

SETTLE_SECONDS = 3.0
KILL_EVERY = 5.0
MOST_INSTANCES = 5


@dataclass(slots=True)
class Course:
    """What was done to the instances under load, and how fast they were found and back, in seconds."""

    done: int = 0
    detected: list[float] = field(default_factory=list)
    recovered: list[float] = field(default_factory=list)
    misses: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Scene:
    """Where it happens: the server, the streams to keep going, and for how many seconds at least."""

    operator: Operator
    load: StreamLoad
    asked: list[Question]
    inflight: int
    seconds: float


async def kill(scene: Scene) -> Course:
    """SIGKILL to one instance after the other. Raises `BenchError` if they do not come back."""
    course, operator = Course(), scene.operator
    before = await operator.instances()
    watches: list[asyncio.Task[None]] = []
    async with scene.load.going(scene.asked, scene.inflight):
        end = time.monotonic() + scene.seconds
        while time.monotonic() < end:
            await asyncio.sleep(KILL_EVERY)
            victim = _next(await operator.instances(), course.done)
            if victim is not None:
                send_signal(victim.pid, signal.SIGKILL)
                course.done += 1
                watches.append(asyncio.create_task(_watch(operator, victim, course)))
    await operator.until_ready(INSTANCES)
    await asyncio.gather(*watches)
    after = await operator.instances()
    restarts = sum(after[name].restarts - before[name].restarts for name in before)
    if restarts < course.done:
        course.misses.append(f"only {restarts} restarts are counted after {course.done} kills")
    return course


async def stop(scene: Scene) -> Course:
    """SIGSTOP to an instance: its calls stand still, and nothing says that it is gone."""
    course, operator = Course(), scene.operator
    async with scene.load.going(scene.asked, scene.inflight):
        await asyncio.sleep(SETTLE_SECONDS)
        victim = _next(await operator.instances(), 0)
        assert victim is not None
        send_signal(victim.pid, signal.SIGSTOP)
        course.done += 1
        await _watch(operator, victim, course)
    # Up to one interval until it is asked, then three questions without an answer, a second apart.
    bound = CHECK_SECONDS + 3 * (CHECK_SECONDS + 1)
    if course.detected[0] > 2 * bound:
        course.misses.append(f"a stopped instance was found after {course.detected[0]:.1f} s")
    return course


async def roll(scene: Scene) -> Course:
    """Restart all instances, and scale up and down. Raises `BenchError` if one does not come back."""
    course, operator = Course(), scene.operator
    before = await operator.instances()
    async with scene.load.going(scene.asked, scene.inflight):
        await asyncio.sleep(SETTLE_SECONDS)
        began = time.perf_counter()
        await operator.post("/v1/cluster/restart", {"instance_id": "all"})
        course.recovered.append(time.perf_counter() - began)
        after = await operator.instances()
        course.misses += [f"{n} was not restarted" for n in before if after[n].pid == before[n].pid]
        await _scale(operator, "scale_up", MOST_INSTANCES - INSTANCES, MOST_INSTANCES)
        await asyncio.sleep(SETTLE_SECONDS)
        await _scale(operator, "scale_down", MOST_INSTANCES - 1, 1)
        await asyncio.sleep(SETTLE_SECONDS)
    course.done = len(before) + 2 * MOST_INSTANCES - INSTANCES - 1
    await _scale(operator, "scale_up", INSTANCES - 1, INSTANCES)
    return course


async def _scale(operator: Operator, action: str, count: int, total: int) -> None:
    await operator.post("/v1/cluster/scale", {"action": action, "count": count})
    await operator.until_ready(total)


def _next(seen: dict[str, Seen], turn: int) -> Seen | None:
    """The instance whose turn it is, or the next one that is ready."""
    order = [seen[name] for name in sorted(seen)]
    turned = order[turn % len(order) :] + order[: turn % len(order)]
    return next((each for each in turned if each.is_ready), None)


async def _watch(operator: Operator, victim: Seen, course: Course) -> None:
    def is_found(seen: dict[str, Seen]) -> bool:
        return seen[victim.name].pid != victim.pid

    def is_back(seen: dict[str, Seen]) -> bool:
        return is_found(seen) and seen[victim.name].is_ready

    detected = await operator.until(is_found, f"{victim.name} is found to be gone")
    course.detected.append(detected)
    course.recovered.append(detected + await operator.until(is_back, f"{victim.name} is back"))


def figures(course: Course) -> dict[str, Any]:
    return {
        "faults": course.done,
        "detect_max_s": max(course.detected, default=None),
        "recover_max_s": max(course.recovered, default=None),
    }
