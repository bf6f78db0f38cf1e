"""Pace: requests of batches keep out of the way of those that somebody waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from app.batches import pace as pacing
from app.batches.pace import BatchPace, MadeWay
from balancer.foreground import Foreground
from support.balancing import call, turns
from support.clock import Clock


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "NOTICE", 0.0)
    monkeypatch.setattr(pacing, "_LOOK_AGAIN", 0.001)


class Setup:
    """A pace, and requests of a batch that run until they are told to end."""

    def __init__(self, *, idle: int = 3, busy: int = 0) -> None:
        self.clock = Clock(1000.0)
        self.foreground = Foreground(self.clock)
        self.pace = BatchPace(self.foreground, idle=idle, busy=busy, clock=self.clock)
        self.end = asyncio.Event()
        self.running = self.made_way = 0
        self.loaded = True

    async def request(self) -> None:
        async with self.pace.turn(lambda: self.loaded) as turn:
            self.running += 1
            try:
                await turn.run(self._work())
            except MadeWay:
                self.made_way += 1
            finally:
                self.running -= 1

    async def _work(self) -> None:
        await self.end.wait()

    async def begin(self, count: int) -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(self.request()) for _ in range(count)]
        await settle(lambda: False)
        return tasks


async def settle(is_done: Callable[[], bool]) -> None:
    for _ in range(10):
        await turns()
        if is_done():
            return
        await asyncio.sleep(0.001)


async def test_some_run_at_once_and_the_others_wait() -> None:
    setup = Setup()
    tasks = await setup.begin(5)
    assert setup.running == 3
    setup.end.set()
    await asyncio.gather(*tasks)
    assert setup.made_way == 0


async def test_they_make_way_and_go_on_after_a_quiet_while() -> None:
    setup = Setup()
    await setup.begin(3)
    someone = call()
    setup.foreground.begin(someone)
    await settle(lambda: setup.made_way == 3)
    assert (setup.running, setup.made_way) == (0, 3)
    tasks = await setup.begin(2)
    assert setup.running == 0
    setup.foreground.end(someone)
    setup.clock.now += pacing.QUIET / 2
    await settle(lambda: setup.running > 0)
    assert setup.running == 0
    setup.clock.now += pacing.QUIET
    await settle(lambda: setup.running == 2)
    assert setup.running == 1, "fewer than before"
    setup.end.set()
    await asyncio.gather(*tasks)
    setup.end.clear()
    tasks = await setup.begin(4)
    assert setup.running == 3, "one more with each that ended"
    setup.end.set()
    await asyncio.gather(*tasks)


async def test_one_begins_now_and_then_however_busy_the_others_are() -> None:
    setup = Setup()
    setup.foreground.begin(call())
    tasks = await setup.begin(2)
    assert setup.running == 0
    setup.clock.now += pacing.PATIENCE
    await settle(lambda: setup.running == 1)
    setup.foreground.begin(call())
    await settle(lambda: False)
    assert (setup.running, setup.made_way) == (1, 0)
    setup.end.set()
    await settle(lambda: setup.running == 0)
    assert [task.done() for task in tasks].count(True) == 1, "the other waits for its minute"
    tasks[0].cancel()
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_as_many_as_one_allows_run_beside_others() -> None:
    setup = Setup(busy=2)
    tasks = await setup.begin(3)
    setup.foreground.begin(call())
    await settle(lambda: setup.made_way == 1)
    assert (setup.running, setup.made_way) == (2, 1)
    setup.end.set()
    await asyncio.gather(*tasks)


async def test_a_model_is_not_loaded_between_two_requests_of_others() -> None:
    setup = Setup()
    setup.loaded = False
    someone = call()
    setup.foreground.begin(someone)
    setup.foreground.end(someone)
    setup.clock.now += pacing.QUIET_FOR_LOAD - 1
    tasks = await setup.begin(1)
    assert setup.running == 0
    setup.clock.now += 2
    await settle(lambda: setup.running == 1)
    assert setup.running == 1
    setup.end.set()
    await asyncio.gather(*tasks)
    setup.foreground.begin(someone)
    tasks = await setup.begin(1)
    setup.clock.now += pacing.PATIENCE_FOR_LOAD - 1
    await settle(lambda: False)
    assert setup.running == 0
    setup.clock.now += 1
    await settle(lambda: tasks[0].done())
    assert tasks[0].done()


async def test_to_be_cancelled_is_not_to_make_way() -> None:
    setup = Setup()
    (task,) = await setup.begin(1)
    setup.foreground.begin(call())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert setup.made_way == 0
