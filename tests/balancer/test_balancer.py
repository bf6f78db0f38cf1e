"""Placing calls: limits, queue, cancellation. Backends are stand-ins; no engine, no sleep."""

from __future__ import annotations

import asyncio

import pytest

from balancer.backend import BackendState, BackendStatus, Call, Lease, Reply
from balancer.balancer import Balancer, Limits
from balancer.errors import ModelLoading, NoBackend, QueueFull, UnknownModel


class StubBackend:
    def __init__(self, name: str = "b0", state: BackendState = BackendState.READY) -> None:
        self.name = name
        self.model = "m"
        self.state = state
        self.inflight = 0
        self.progress = 0.0

    @property
    def available(self) -> bool:
        return self.state is BackendState.READY

    def status(self) -> BackendStatus:
        extra = {"eta_seconds": 3.0}
        return BackendStatus(
            self.name, "stub", self.model, self.state, detail="why", progress=self.progress, extra=extra
        )

    async def run(self, call: Call) -> Reply:
        raise NotImplementedError

    def begin(self) -> None:
        self.inflight += 1

    def end(self) -> None:
        self.inflight -= 1


async def nothing(engine: object) -> Reply:
    raise NotImplementedError


def call(model: str = "m") -> Call:
    return Call("r", model, "/v1/chat/completions", b"", stream=False, run=nothing)


def balancer(*backends: StubBackend, **limits: float) -> Balancer:
    made = Balancer(Limits(**limits))  # type: ignore[arg-type]
    for backend in backends:
        made.add(backend)
    return made


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_lease_counts_until_it_is_released() -> None:
    backend = StubBackend()
    house = balancer(backend)
    lease = await house.acquire(call())
    assert (house.running, backend.inflight) == (1, 1)
    lease.release()
    lease.release()
    assert (house.running, backend.inflight) == (0, 0)


async def test_the_least_busy_backend_is_taken() -> None:
    first, second = StubBackend("a"), StubBackend("b")
    house = balancer(first, second)
    leases = [await house.acquire(call()) for _ in range(4)]
    assert (first.inflight, second.inflight) == (2, 2)
    for lease in leases:
        lease.release()


async def test_calls_beyond_the_limit_wait_in_order() -> None:
    house = balancer(StubBackend(), concurrent=1)
    first = await house.acquire(call())
    order: list[int] = []

    async def wait(i: int) -> None:
        lease = await house.acquire(call())
        order.append(i)
        lease.release()

    tasks = [asyncio.create_task(wait(i)) for i in range(5)]
    await turns()
    assert (house.queue_depth, order) == (5, [])
    first.release()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3, 4]
    assert (house.queue_depth, house.running) == (0, 0)


async def test_nobody_overtakes_the_queue() -> None:
    backend = StubBackend()
    house = balancer(backend, concurrent=1)
    lease = await house.acquire(call())
    waiting = asyncio.create_task(house.acquire(call()))
    await turns()
    lease.release()  # granted to the one who waits, who has not woken yet
    late = asyncio.create_task(house.acquire(call()))
    await turns()
    assert waiting.done()
    assert not late.done()
    waiting.result().release()
    (await late).release()


async def test_a_full_queue_refuses_with_a_time_to_come_back() -> None:
    house = balancer(StubBackend(), concurrent=1, queued=1)
    lease = await house.acquire(call())
    waiting = asyncio.create_task(house.acquire(call()))
    await turns()
    with pytest.raises(QueueFull) as refused:
        await house.acquire(call())
    assert refused.value.retry_after
    waiting.cancel()
    await turns()
    assert house.queue_depth == 0
    lease.release()


async def test_waiting_ends_after_the_time_allowed() -> None:
    house = balancer(StubBackend(), concurrent=1, queue_timeout=0.01)
    lease = await house.acquire(call())
    with pytest.raises(QueueFull):
        await house.acquire(call())
    assert house.queue_depth == 0
    lease.release()
    (await house.acquire(call())).release()


async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    house = balancer(StubBackend(), concurrent=1)
    lease = await house.acquire(call())
    waiting = asyncio.create_task(house.acquire(call()))
    await turns()
    waiting.cancel()
    await turns()
    lease.release()
    assert (house.queue_depth, house.running) == (0, 0)


async def test_cancelling_in_the_turn_of_the_grant_gives_the_lease_back() -> None:
    backend = StubBackend()
    house = balancer(backend, concurrent=1)
    lease = await house.acquire(call())
    waiting = asyncio.create_task(house.acquire(call()))
    await turns()
    lease.release()
    waiting.cancel()
    await turns()
    assert waiting.cancelled()
    assert (house.running, backend.inflight, house.queue_depth) == (0, 0, 0)


async def test_unknown_models_are_refused_at_once() -> None:
    with pytest.raises(UnknownModel):
        await balancer(StubBackend()).acquire(call("other"))


async def test_a_loading_model_is_waited_for() -> None:
    backend = StubBackend(state=BackendState.STARTING)
    house = balancer(backend)
    waiting = asyncio.create_task(house.acquire(call()))
    await turns()
    assert not waiting.done()
    backend.state = BackendState.READY
    house.changed()
    (await waiting).release()


async def test_a_load_that_takes_too_long_says_how_far_it_is() -> None:
    backend = StubBackend(state=BackendState.STARTING)
    backend.progress = 0.4
    with pytest.raises(ModelLoading) as refused:
        await balancer(backend, load_timeout=0.01).acquire(call())
    assert (refused.value.progress, refused.value.eta_seconds, refused.value.state) == (0.4, 3.0, "starting")


async def test_a_failed_load_fails_those_who_wait() -> None:
    backend = StubBackend(state=BackendState.STARTING)
    house = balancer(backend)
    waiting = asyncio.create_task(house.acquire(call()))
    await turns()
    backend.state = BackendState.FAILED
    house.changed()
    with pytest.raises(NoBackend, match="why"):
        await waiting
    with pytest.raises(NoBackend):
        await house.acquire(call())


async def test_a_lease_is_released_by_whoever_holds_it_once() -> None:
    released: list[int] = []
    backend = StubBackend()
    lease = Lease(backend, lambda: released.append(1))
    lease.release()
    lease.release()
    assert released == [1]
