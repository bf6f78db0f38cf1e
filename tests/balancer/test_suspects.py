"""Calls under which instances die: the one that kills comes to an end, and the others do not share it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from balancer import suspects
from balancer.call import Reply, ResumePoint
from balancer.dispatch import FAILURES, Dispatch, Failovers
from balancer.errors import RequestKills
from balancer.instances import Deployment
from balancer.lease import Lease
from engines.lifecycle.record import LONGEST_RESTART_PAUSE
from support.balancing import EngineBody, StubBackend, StubEngine, World, call, stream, turns

MakeWorld = Callable[..., World]


@pytest.fixture(autouse=True)
def short_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    for bound in ("SHORTEST_TRIAL", "LONGEST_TRIAL"):
        monkeypatch.setattr(suspects, bound, 0.01)


class Stream:
    """An answer without end that is followed wherever it goes on."""

    def __init__(self, world: World, failovers: Failovers, run: Any = stream) -> None:
        self._serving = Dispatch(world.balancer, call("a", resumable=True, run=run), failovers)
        self.task = world.start(self._follow())

    @property
    def body(self) -> EngineBody | None:
        reply = self._serving._reply
        return reply.body if reply is not None and isinstance(reply.body, EngineBody) else None

    async def _follow(self) -> None:
        reply, _ = await self._serving.open()
        body = reply.body
        while True:
            try:
                async for _ in body:
                    pass
                break
            except FAILURES as failure:
                body, _ = await self._serving.resume(failure)
        self._serving.finish()


async def stuck(engine: Any, resume_point: ResumePoint | None) -> Reply:
    """A call's way to run that never gets further than to its first token."""
    if resume_point is None:
        return await stream(engine, None)
    return Reply(200, [], EngineBody(engine, resume_point))


class Deaths:
    """Kills an instance; all that die come back."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.failovers = Failovers(sleep=self._time)
        self.count = 0

    async def _time(self, seconds: float) -> None:
        await turns()

    async def kill(self, stream: Stream) -> None:
        """Kill the instance that serves ``stream``, once there is one."""
        async with asyncio.timeout(5):
            while stream.body is None and not stream.task.done():
                await asyncio.sleep(0.002)
        if stream.body is None:
            return
        engine: StubEngine = stream.body._engine
        self.count += 1
        engine.healthy = False
        engine.break_all("the process was killed by signal 11")
        await turns()
        await self.world.later(LONGEST_RESTART_PAUSE)


KILLERS = [(stream, suspects.MOST_DEATHS_IN_ALL), (stuck, suspects.MOST_DEATHS)]


@pytest.mark.parametrize("innocent", [0, 1, 6])
@pytest.mark.parametrize(("run", "most"), KILLERS)
async def test_only_the_one_that_kills_is_given_up(
    make_world: MakeWorld, innocent: int, run: Any, most: int
) -> None:
    world = make_world(deployments={"a": Deployment(2)})
    await world.ready()
    deaths = Deaths(world)
    guilty = Stream(world, deaths.failovers, run)
    others = [Stream(world, deaths.failovers) for _ in range(innocent)]
    await turns()
    while not guilty.task.done():
        await deaths.kill(guilty)
    assert deaths.count == most
    with pytest.raises(RequestKills, match=rf"{most} instances failed while they computed it.*signal 11"):
        await guilty.task
    assert deaths.failovers.counts["broken"] == 1
    await finish(others)


async def finish(streams: list[Stream]) -> None:
    """Each comes to its proper end."""
    async with asyncio.timeout(5):
        for stream in streams:
            while stream.body is None and not stream.task.done():
                await asyncio.sleep(0.002)
            if stream.body is not None:
                stream.body.end()
            await stream.task


@pytest.mark.parametrize(("run", "most"), KILLERS)
async def test_one_request_after_the_other_that_kills(make_world: MakeWorld, run: Any, most: int) -> None:
    """Each takes few instances with it, whoever sent it; what runs beside them goes on."""
    world = make_world(deployments={"a": Deployment(3)})
    await world.ready()
    deaths = Deaths(world)
    beside = [Stream(world, deaths.failovers) for _ in range(3)]
    for count in (1, 2):
        guilty = Stream(world, deaths.failovers, run)
        while not guilty.task.done():
            await deaths.kill(guilty)
        assert isinstance(guilty.task.exception(), RequestKills)
        assert deaths.count == count * most
    alive = [stream for stream in beside if not stream.task.done()]
    assert alive, "those that were never beside it three times"
    await finish(alive)


async def test_a_suspect_that_leaves_makes_room_for_the_next(make_world: MakeWorld) -> None:
    world = make_world()
    held = [suspects.Suspicion(suspects.Suspects(), "a")]
    shared: Any = held[0]._suspects
    held += [suspects.Suspicion(shared, "a") for _ in range(2)]
    for each in held:
        each.deaths = suspects.SUSPECT_AFTER_IN_ALL
    await held[0].wait_turn()
    second, third = (world.start(each.wait_turn()) for each in held[1:])
    await turns()
    assert not second.done()
    assert not third.done()
    second.cancel()
    held[0].end()
    await turns()
    assert third.done()
    held[2].end()
    assert not shared.turns["a"].locked()


async def test_a_death_counts_against_the_suspect_that_is_tried_there_only() -> None:
    backend = StubBackend("x", managed=True)
    shared = suspects.Suspects()
    suspect, early, late = (suspects.Suspicion(shared, "m") for _ in range(3))
    suspect.deaths = suspects.SUSPECT_AFTER_IN_ALL
    leases = [Lease(backend, call(), lambda _: None) for _ in range(3)]
    await suspect.wait_turn()
    suspect.begin(leases[0])
    early.note(leases[1], 5)
    suspect.note(leases[0], 5)
    suspect.end()
    late.note(leases[2], 5)
    assert (suspect.deaths, early.deaths, late.deaths) == (suspects.SUSPECT_AFTER_IN_ALL + 1, 0, 0)
    backend.start_anew()
    late.note(Lease(backend, call(), lambda _: None), 5)
    assert late.deaths == 1


async def test_where_a_suspect_outlived_its_trial_all_count_again() -> None:
    backend = StubBackend("x", managed=True)
    shared = suspects.Suspects()
    suspect, other = (suspects.Suspicion(shared, "m") for _ in range(2))
    suspect.deaths = suspects.SUSPECT_AFTER_IN_ALL
    lease = Lease(backend, call(), lambda _: None)
    await suspect.wait_turn()
    suspect.begin(lease)
    suspect.end()
    other.note(lease, 5)
    suspect.note(lease, 5)
    assert (suspect.deaths, other.deaths) == (suspects.SUSPECT_AFTER_IN_ALL + 1, 1)
