"""Placing calls: limits, queue, cancellation. Backends are stand-ins; no engine, no sleep."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import pytest

from balancer.backend import BackendState, BackendStatus, Call, Lease, Reply
from balancer.balancer import Balancer, Limits
from balancer.errors import BalancerError, ModelLoading, NoBackend, NoRoom, QueueFull, UnknownModel


class StubBackend:
    def __init__(self, name: str = "b0", state: BackendState = BackendState.READY, model: str = "m") -> None:
        self.name = name
        self.model = model
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

    def obstacle(self) -> BalancerError | None:
        return NoBackend("why") if self.state is BackendState.FAILED else None

    def excuse(self) -> BalancerError | None:
        if self.state is not BackendState.STARTING:
            return NoRoom("all are in use") if self.state is BackendState.STOPPED else None
        return ModelLoading(
            "loading", retry_after=3.0, state=self.state, progress=self.progress, eta_seconds=3.0
        )

    def begin(self, call: Call) -> None:
        self.inflight += 1

    def end(self) -> None:
        self.inflight -= 1


class StubPool:
    """The backends it is given; remembers what was demanded."""

    def __init__(self, backends: Sequence[StubBackend]) -> None:
        self._backends = backends
        self.demanded: list[list[str]] = []

    def backends(self, model: str) -> list[StubBackend]:
        found = [backend for backend in self._backends if backend.model == model]
        if not found:
            raise UnknownModel(model)
        return found

    def demand(self, models: Iterable[str]) -> None:
        self.demanded.append(list(models))

    def statuses(self) -> list[BackendStatus]:
        return [backend.status() for backend in self._backends]


async def nothing(engine: object) -> Reply:
    raise NotImplementedError


def call(model: str = "m") -> Call:
    return Call("r", model, "/v1/chat/completions", b"", stream=False, run=nothing)


def balancer(*backends: StubBackend, **limits: float) -> Balancer:
    return Balancer(Limits(**limits), StubPool(backends))  # type: ignore[arg-type]


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
    lease = Lease(backend, call(), lambda: released.append(1))
    lease.release()
    lease.release()
    assert released == [1]


def pool_of(house: Balancer) -> StubPool:
    pool = house._pool
    assert isinstance(pool, StubPool)
    return pool


async def test_what_waits_is_demanded_in_order_of_arrival() -> None:
    stopped = [StubBackend(model=name, state=BackendState.STOPPED) for name in ("a", "b")]
    house = balancer(*stopped)
    waiting = [asyncio.create_task(house.acquire(call(name))) for name in ("b", "a", "b")]
    await turns()
    assert pool_of(house).demanded[-1] == ["b", "a"]
    stopped[1].state = BackendState.READY
    house.changed()
    await turns()
    assert [task.done() for task in waiting] == [True, False, True]
    assert pool_of(house).demanded[-1] == ["a"]
    waiting[1].cancel()
    await turns()
    assert pool_of(house).demanded[-1] == []
    for task in (waiting[0], waiting[2]):
        task.result().release()


async def test_who_waits_for_a_place_is_not_overtaken_by_a_switch() -> None:
    """Making its model go now would only bring it back a moment later."""
    ready, stopped = StubBackend(model="a"), StubBackend(model="b", state=BackendState.STOPPED)
    house = balancer(ready, stopped, concurrent=1)
    lease = await house.acquire(call("a"))
    tasks = [asyncio.create_task(house.acquire(call(name))) for name in ("a", "b")]
    await turns()
    assert pool_of(house).demanded[-1] == []
    lease.release()
    await turns()
    assert pool_of(house).demanded[-1] == ["b"]
    tasks[1].cancel()
    (await tasks[0]).release()


async def test_waiting_in_vain_for_room_is_no_full_queue() -> None:
    with pytest.raises(NoRoom):
        await balancer(StubBackend(state=BackendState.STOPPED), queue_timeout=0.01).acquire(call())
