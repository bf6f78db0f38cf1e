"""The order of the queue, and what a waiter leaves behind."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.lease import Lease
from balancer.queue import FRESH, CallQueue, Tried, Waiter, is_tried
from support.balancing import StubBackend, call


def waiter(model: str = "m", priority: int = 0, tried: Tried = FRESH) -> Waiter:
    granted: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
    return Waiter(call(model, priority=priority), tried, granted, arrived=0.0)


async def test_calls_are_counted_by_model() -> None:
    calls = CallQueue()
    waiters = [waiter("a"), waiter("b"), waiter("a")]
    for each in waiters:
        calls.add(each)
    assert (len(calls), calls.of("a"), calls.of("b"), calls.of("c")) == (3, 2, 1, 0)
    calls.remove(waiters[0])
    assert (len(calls), calls.of("a")) == (2, 1)
    assert list(calls) == waiters[1:]


async def test_the_queue_may_change_while_it_is_looked_at() -> None:
    calls = CallQueue()
    for _ in range(3):
        calls.add(waiter())
    for each in calls:
        calls.remove(each)
    assert len(calls) == 0


@settings(derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.integers(-2, 2), st.booleans()), max_size=20))
def test_order_is_priority_then_retries_then_arrival(arrivals: list[tuple[int, bool]]) -> None:
    async def run() -> None:
        calls = CallQueue()
        waiters = [waiter(priority=priority, tried={"x": 0} if again else {}) for priority, again in arrivals]
        for each in waiters:
            calls.add(each)
        order = sorted(range(len(arrivals)), key=lambda i: (arrivals[i][0], not arrivals[i][1], i))
        assert list(calls) == [waiters[i] for i in order]

    asyncio.run(run())


def test_a_backend_is_tried_as_long_as_it_is_the_same() -> None:
    backend = StubBackend("b0")
    assert not is_tried(FRESH, backend)
    assert not is_tried({"other": 0}, backend)
    assert is_tried({"b0": 0}, backend)
    backend.start_anew()
    assert not is_tried({"b0": 0}, backend)


@pytest.mark.parametrize("how", ["granted", "failed", "cancelled", "waiting"])
async def test_a_waiter_gives_back_what_it_was_granted(how: str) -> None:
    released: list[Lease] = []
    leaver = waiter()
    if how == "granted":
        leaver.granted.set_result(Lease(StubBackend(), leaver.call, released.append))
    elif how == "failed":
        leaver.granted.set_exception(ValueError())
    elif how == "cancelled":
        leaver.granted.cancel()
    assert leaver.has_lease == (how == "granted")
    leaver.give_back()
    assert len(released) == (how == "granted")
    assert leaver.granted.done()
