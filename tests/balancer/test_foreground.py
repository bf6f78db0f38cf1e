"""Foreground: the calls that somebody waits for are counted, wherever they are."""

from __future__ import annotations

import asyncio

import pytest

from balancer.balancer import Balancer, QueueLimits
from balancer.call import BACKGROUND_PRIORITY
from balancer.errors import NoBackend
from support.balancing import StubBackend, StubPool, call, turns
from support.clock import Clock


async def test_calls_count_from_their_arrival_to_their_end_but_not_those_in_the_background() -> None:
    clock = Clock()
    balancer = Balancer(QueueLimits(concurrent=1), StubPool([StubBackend("b0")]), clock)
    foreground, told = balancer.foreground, []
    stop = foreground.listen(lambda: told.append(foreground.count))
    assert foreground.quiet_seconds == float("inf")

    batch = await balancer.acquire(call(priority=BACKGROUND_PRIORITY))
    assert foreground.count == 0
    waiting = asyncio.ensure_future(balancer.acquire(call()))
    await turns()
    assert (foreground.count, told) == (1, [1])
    batch.release()
    lease = await waiting
    assert (foreground.count, foreground.quiet_seconds) == (1, 0)
    given_up = asyncio.ensure_future(balancer.acquire(call()))
    await turns()
    assert foreground.count == 2
    given_up.cancel()
    await turns()
    lease.release()
    lease.release()
    assert (foreground.count, told) == (0, [1, 0])
    clock.now += 5
    assert foreground.quiet_seconds == 5
    stop()
    (await balancer.acquire(call())).release()
    assert told == [1, 0]


async def test_a_call_that_is_refused_counts_no_more() -> None:
    backend = StubBackend("b0")
    balancer = Balancer(QueueLimits(), StubPool([backend]))
    with pytest.raises(NoBackend):
        await balancer.acquire(call(), {"b0": backend.generation})
    assert balancer.foreground.count == 0
