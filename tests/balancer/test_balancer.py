"""Placing calls: limits, queue, cancellation. Backends are stand-ins; no engine, no sleep."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from balancer import balancer as module
from balancer.backends.base import BackendState, Verdict
from balancer.backends.readiness import Gone
from balancer.balancer import Balancer, QueueLimits
from balancer.call import Call
from balancer.errors import (
    BalancerError,
    CannotServe,
    LoopDetected,
    ModelLoading,
    NoBackend,
    NoRoom,
    QueueFull,
    UnknownModel,
)
from balancer.health.breaker import STREAK, Breaker
from balancer.lease import Lease
from balancer.policies import Strategy
from engines.errors import BadModelFile
from support.balancing import Clock, StubBackend, StubPool, call, is_ready, turns

READY, STARTING, STOPPED = BackendState.READY, BackendState.STARTING, BackendState.STOPPED


class House(Balancer):
    """A balancer over stubs, with a clock that stands still."""

    def __init__(self, *backends: StubBackend, clock: Clock | None = None, **limits: Any) -> None:
        self.pool = StubPool(backends, Strategy.LEAST_CONNECTIONS)
        self.clock = clock or Clock()
        super().__init__(QueueLimits(**limits), self.pool, self.clock)

    def ask(self, model: str = "m", **fields: Any) -> asyncio.Task[Lease]:
        return asyncio.create_task(self.acquire(call(model, **fields)))

    def retry(self, **tried: int) -> asyncio.Task[Lease]:
        return asyncio.create_task(self.acquire(call(), tried))

    def assert_empty(self) -> None:
        assert (self.queue_depth, self.running) == (0, 0)
        assert all(backend.inflight == 0 for backend in self.pool.known)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting calls look at the clock all the time."""
    monkeypatch.setattr(module, "LOOK_AGAIN", 0.0)


async def ends(task: asyncio.Task[Lease]) -> None:
    """Wait until ``task`` failed, which it must; time stands still meanwhile."""
    async with asyncio.timeout(5):
        await asyncio.wait((task,))
    assert task.exception() is not None


# -- leases ----------------------------------------------------------------------------------------


async def test_a_lease_counts_until_it_is_released() -> None:
    backend = StubBackend()
    house = House(backend)
    lease = await house.acquire(call())
    assert (house.running, backend.inflight, house.ongoing("m")) == (1, 1, 1)
    lease.release()
    lease.release()
    house.assert_empty()
    assert house.ongoing("m") == 0


async def test_a_lease_is_released_by_whoever_holds_it_once() -> None:
    released: list[Lease] = []
    backend = StubBackend()
    lease = Lease(backend, call(), released.append)
    lease.release(Verdict.SUCCESS)
    lease.release(Verdict.FAILURE)
    assert released == [lease]
    assert (backend.successes, backend.failures) == (1, 0)


async def test_what_a_lease_says_of_its_backend(clock: Clock) -> None:
    backend = StubBackend(clock=clock)
    house = House(backend, clock=clock)
    for seconds, outcome in ((2.0, Verdict.SUCCESS), (9.0, Verdict.FAILURE), (4.0, Verdict.NEUTRAL)):
        lease = await house.acquire(call())
        clock.now += seconds
        assert lease.age == seconds
        lease.release(outcome)
    status = backend.status()
    assert (status.requests, status.failures, status.success_rate) == (3, 1, 0.5)
    assert status.avg_response_time == 2.0  # of what succeeded
    assert backend.suspicions == 1


async def test_the_least_busy_backend_is_taken() -> None:
    first, second = StubBackend("a"), StubBackend("b")
    house = House(first, second)
    leases = [await house.acquire(call()) for _ in range(4)]
    assert (first.inflight, second.inflight) == (2, 2)
    for lease in leases:
        lease.release()


# -- the queue -------------------------------------------------------------------------------------


async def test_calls_beyond_the_limit_wait_in_order() -> None:
    house = House(StubBackend(), concurrent=1)
    first = await house.acquire(call())
    order: list[int] = []

    async def wait(i: int) -> None:
        lease = await house.acquire(call())
        order.append(i)
        lease.release()

    tasks = [asyncio.create_task(wait(i)) for i in range(5)]
    await turns()
    assert (house.queue_depth, house.ongoing("m"), order) == (5, 6, [])
    first.release()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3, 4]
    house.assert_empty()


async def test_calls_beyond_a_backends_limit_wait() -> None:
    house = House(StubBackend(limit=1))
    first = await house.acquire(call())
    second = house.ask()
    await turns()
    assert not second.done()
    first.release()
    (await second).release()
    house.assert_empty()


async def test_urgent_calls_go_first() -> None:
    house = House(StubBackend(), concurrent=1)
    lease = await house.acquire(call())
    order: list[str] = []

    async def wait(name: str, tried: dict[str, int], priority: int) -> None:
        lease = await house.acquire(call(priority=priority), tried)
        order.append(name)
        lease.release()

    waiting = [("late", {}, 1), ("first", {}, 0), ("second", {}, 0), ("again", {"x": 0}, 0), ("now", {}, -1)]
    tasks = []
    for name, tried, priority in waiting:
        tasks.append(asyncio.create_task(wait(name, tried, priority)))
        await turns()
    lease.release()
    await asyncio.gather(*tasks)
    assert order == ["now", "again", "first", "second", "late"]


async def test_nobody_overtakes_the_queue() -> None:
    house = House(StubBackend(), concurrent=1)
    lease = await house.acquire(call())
    waiting = house.ask()
    await turns()
    lease.release()  # granted to the one who waits, who has not woken yet
    late = house.ask()
    await turns()
    assert waiting.done()
    assert not late.done()
    waiting.result().release()
    (await late).release()


async def test_a_full_queue_refuses_with_a_time_to_come_back() -> None:
    house = House(StubBackend(), concurrent=1, queued=1)
    lease = await house.acquire(call())
    waiting = house.ask()
    await turns()
    with pytest.raises(QueueFull) as refused:
        await house.acquire(call())
    assert refused.value.retry_after
    waiting.cancel()
    await turns()
    assert house.queue_depth == 0
    lease.release()


async def test_a_full_queue_is_one_models_and_no_bar_to_retries() -> None:
    house = House(StubBackend(), StubBackend("n0", model="n"), concurrent=1, queued=1)
    lease = await house.acquire(call())
    waiting = [house.ask(), house.ask("n"), house.retry(other=0)]
    await turns()
    assert house.queue_depth == 3
    for task in waiting:
        task.cancel()
    await turns()
    lease.release()
    house.assert_empty()


async def test_the_time_to_come_back_is_how_fast_the_queue_moves(clock: Clock) -> None:
    house = House(StubBackend(), clock=clock, concurrent=1, queued=2)
    for _ in range(5):  # one each two seconds
        lease = await house.acquire(call())
        clock.now += 2.0
        lease.release()
    lease = await house.acquire(call())
    waiting = [house.ask(), house.ask()]
    await turns()
    with pytest.raises(QueueFull) as refused:
        await house.acquire(call())
    assert refused.value.retry_after == 6.0
    for task in waiting:
        task.cancel()
    await turns()
    lease.release()


@pytest.mark.usefixtures("impatient")
async def test_waiting_ends_after_the_time_allowed() -> None:
    house = House(StubBackend(), concurrent=1, queue_timeout=10)
    lease = await house.acquire(call())
    waiting = house.ask()
    await turns()
    house.clock.now = 9.9
    await turns(50)
    assert not waiting.done()
    house.clock.now = 10.0
    await ends(waiting)
    assert isinstance(waiting.exception(), QueueFull)
    assert house.queue_depth == 0
    lease.release()
    (await house.acquire(call())).release()


async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    house = House(StubBackend(), concurrent=1)
    lease = await house.acquire(call())
    waiting = house.ask()
    await turns()
    waiting.cancel()
    await turns()
    lease.release()
    house.assert_empty()


async def test_cancelling_in_the_turn_of_the_grant_gives_the_lease_back() -> None:
    house = House(StubBackend(), concurrent=1)
    lease = await house.acquire(call())
    waiting, next_one = house.ask(), house.ask()
    await turns()
    lease.release()
    waiting.cancel()
    (await next_one).release()
    assert waiting.cancelled()
    house.assert_empty()


async def test_unknown_models_are_refused_at_once() -> None:
    with pytest.raises(UnknownModel):
        await House(StubBackend()).acquire(call("other"))


class Far(StubBackend):
    """An upstream whose id is its name."""

    def admits(self, call: Call) -> bool:
        return self.name not in call.hops


async def test_a_call_never_goes_where_it_came_from() -> None:
    house = House(Far("far"), StubBackend("near"), Far("farther"))
    for _ in range(3):
        assert (await house.acquire(call(hops=("far", "farther")))).backend.name == "near"
    house = House(Far("far"), Far("farther"))
    assert (await house.acquire(call(hops=("far",)))).backend.name == "farther"
    assert not house.has_other(call(hops=("far", "farther")), {})


@pytest.mark.parametrize("order", [1, -1])
async def test_of_what_is_gone_the_one_that_may_come_back_is_told(order: int) -> None:
    broken, away = StubBackend("broken"), StubBackend("away")
    broken._absence = lambda: Gone(lambda: CannotServe("damaged", BadModelFile("damaged")))  # type: ignore[method-assign]
    away._absence = lambda: Gone(lambda: NoBackend("away", 5))  # type: ignore[method-assign]
    broken.state = away.state = BackendState.FAILED
    with pytest.raises(NoBackend, match="away"):
        await House(*[broken, away][::order]).acquire(call())
    with pytest.raises(CannotServe, match="damaged"):
        await House(broken).acquire(call())


async def test_a_call_that_can_only_go_where_it_came_from_is_refused_at_once() -> None:
    house = House(Far("far"))
    with pytest.raises(LoopDetected, match="m is only at servers that this request came through"):
        await house.acquire(call(hops=("far",)))
    house.assert_empty()


async def test_what_waits_for_a_backend_that_goes_is_refused() -> None:
    """Only where it came from is left; those behind it are served."""
    house = House(near := StubBackend("near", limit=1), Far("far", limit=1))
    leases = [await house.acquire(call()) for _ in range(2)]
    looping, other = house.ask(hops=("far",)), house.ask()
    await turns()
    house.pool.known.remove(near)
    house.changed()
    for lease in leases:
        lease.release()
    await turns()
    assert isinstance(looping.exception(), LoopDetected)
    assert other.result().backend.name == "far"


async def test_a_model_that_goes_away_is_refused_to_those_who_wait() -> None:
    house = House(StubBackend(), concurrent=1)
    lease = await house.acquire(call())
    waiting = house.ask()
    await turns()
    house.pool.known.clear()
    assert not house.has_other(call(), {})
    lease.release()
    with pytest.raises(UnknownModel):
        await waiting
    assert house.queue_depth == 0


async def test_many_who_wait_are_looked_at_once_for_each_model() -> None:
    """Every call that ends looks at the queue: a long one must not make that slow."""
    house = House(StubBackend(), concurrent=1, queued=1000)
    lease = await house.acquire(call())
    waiting = [house.ask() for _ in range(100)]
    await turns()
    looks = 0
    find = house.pool.backends

    def counted(model: str, adapter: str | None = None) -> Any:
        nonlocal looks
        looks += 1
        return find(model, adapter)

    house.pool.backends = counted  # type: ignore[method-assign]
    lease.release()
    assert looks < 10
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    house.assert_empty()


# -- models that come and fail ---------------------------------------------------------------------


async def test_a_loading_model_is_waited_for() -> None:
    backend = StubBackend(state=STARTING)
    house = House(backend)
    waiting = house.ask()
    await turns()
    assert not waiting.done()
    backend.state = READY
    house.changed()
    (await waiting).release()


@pytest.mark.usefixtures("impatient")
async def test_a_load_that_takes_too_long_says_how_far_it_is() -> None:
    backend = StubBackend(state=STARTING)
    backend.progress = 0.4
    house = House(backend, load_timeout=5, queue_timeout=1000)
    waiting = house.ask()
    await turns()
    house.clock.now = 5.0
    await ends(waiting)
    error = waiting.exception()
    assert isinstance(error, ModelLoading)
    assert (error.progress, error.eta_seconds, error.state) == (0.4, 3.0, "starting")


@pytest.mark.usefixtures("impatient")
async def test_the_time_of_a_load_counts_from_its_beginning() -> None:
    backend = StubBackend(state=STOPPED)
    house = House(backend, load_timeout=5, queue_timeout=1000)
    waiting = house.ask()
    await turns()
    house.clock.now = 100.0  # there was no room for it
    backend.state = STARTING
    await turns(50)
    house.clock.now = 104.9
    await turns(50)
    assert not waiting.done()
    house.clock.now = 105.0
    await ends(waiting)


@pytest.mark.usefixtures("impatient")
async def test_while_another_backend_serves_only_the_queues_time_counts() -> None:
    loading, busy = StubBackend(state=STARTING), StubBackend("b1", limit=1)
    house = House(loading, busy, load_timeout=5, queue_timeout=20)
    lease = await house.acquire(call())
    waiting = house.ask()
    await turns()
    house.clock.now = 19.0
    await turns(50)
    assert not waiting.done()
    house.clock.now = 20.0
    await ends(waiting)
    assert isinstance(waiting.exception(), QueueFull)
    lease.release()


async def test_a_failed_load_fails_those_who_wait() -> None:
    backend = StubBackend(state=STARTING)
    house = House(backend)
    waiting = house.ask()
    await turns()
    backend.state = BackendState.FAILED
    house.changed()
    with pytest.raises(NoBackend, match="why"):
        await waiting
    with pytest.raises(NoBackend):
        await house.acquire(call())


@pytest.mark.usefixtures("impatient")
async def test_waiting_in_vain_for_room_is_no_full_queue() -> None:
    house = House(StubBackend(state=STOPPED), queue_timeout=10)
    waiting = house.ask()
    await turns()
    house.clock.now = 10.0
    await ends(waiting)
    assert isinstance(waiting.exception(), NoRoom)


# -- what is demanded ------------------------------------------------------------------------------


async def test_what_waits_is_demanded_in_order_of_arrival() -> None:
    stopped = [StubBackend(name, model=name, state=STOPPED) for name in ("a", "b")]
    house = House(*stopped)
    waiting = [house.ask(name) for name in ("b", "a", "b")]
    await turns()
    assert house.pool.demanded[-1] == ["b", "a"]
    stopped[1].state = READY
    house.changed()
    await turns()
    assert [task.done() for task in waiting] == [True, False, True]
    assert house.pool.demanded[-1] == ["a"]
    waiting[1].cancel()
    await turns()
    assert house.pool.demanded[-1] == []
    for task in (waiting[0], waiting[2]):
        task.result().release()


async def test_who_waits_for_a_place_is_not_overtaken_by_a_switch() -> None:
    """Making its model go now would only bring it back a moment later."""
    house = House(StubBackend("a", model="a"), StubBackend("b", model="b", state=STOPPED), concurrent=1)
    lease = await house.acquire(call("a"))
    tasks = [house.ask(name) for name in ("a", "b")]
    await turns()
    assert house.pool.demanded[-1] == []
    lease.release()
    await turns()
    assert house.pool.demanded[-1] == ["b"]
    tasks[1].cancel()
    (await tasks[0]).release()


# -- calls that failed somewhere -------------------------------------------------------------------


async def test_a_call_never_gets_what_it_tried() -> None:
    house = House(StubBackend("a"), StubBackend("b"))
    leases = [await house.acquire(call(), {"a": 0}) for _ in range(4)]
    assert {lease.backend.name for lease in leases} == {"b"}
    for lease in leases:
        lease.release()


async def test_a_call_that_tried_all_is_refused_at_once() -> None:
    house = House(StubBackend("a"), StubBackend("b", state=STOPPED))
    with pytest.raises(NoBackend, match="no other backend"):
        await house.acquire(call(), {"a": 0})
    assert house.pool.demanded[-1:] in ([], [[]])
    house.assert_empty()


async def test_what_was_started_anew_may_be_tried_again() -> None:
    backend = StubBackend(state=STARTING)
    house = House(backend)
    waiting = house.retry(b0=0)
    await turns()
    assert not waiting.done()
    backend.start_anew()
    house.changed()
    lease = await waiting
    assert lease.generation == 1
    lease.release()


async def test_a_retry_makes_no_model_load() -> None:
    house = House(StubBackend("a", state=STARTING), StubBackend("b", state=STOPPED))
    waiting = house.retry(x=0)
    await turns()
    assert house.pool.demanded[-1] == []
    waiting.cancel()
    await turns()
    house.assert_empty()


# -- breakers --------------------------------------------------------------------------------------


async def fail(house: House, times: int = STREAK) -> None:
    for _ in range(times):
        (await house.acquire(call())).release(Verdict.FAILURE)


async def test_failures_that_leases_tell_open_the_breaker(clock: Clock) -> None:
    backend = StubBackend(clock=clock)
    house = House(backend, clock=clock)
    await fail(house, STREAK - 1)
    assert is_ready(backend)
    await fail(house, 1)
    assert not is_ready(backend)
    assert backend.status().breaker == "open"
    with pytest.raises(NoBackend, match="b0 failed too often") as refused:
        await house.acquire(call())
    assert backend.breaker.retry_at is not None
    assert refused.value.retry_after == backend.breaker.retry_at - clock.now > 20


async def test_one_open_breaker_leaves_the_others(clock: Clock) -> None:
    broken, other = StubBackend("a", clock=clock), StubBackend("b", clock=clock)
    house = House(broken, other, clock=clock)
    for _ in range(STREAK):
        (await house.acquire(call(), {"b": 0})).release(Verdict.FAILURE)
    leases = [await house.acquire(call()) for _ in range(3)]
    assert {lease.backend.name for lease in leases} == {"b"}
    with pytest.raises(NoBackend, match="no other"):  # nobody waits for half a minute
        await house.acquire(call(), {"b": 0})
    for lease in leases:
        lease.release()


@pytest.mark.usefixtures("impatient")
async def test_a_load_beside_an_open_breaker_has_the_time_of_a_load(clock: Clock) -> None:
    """The broken one serves nobody, and says less than the one that is coming."""
    broken, loading = StubBackend(clock=clock), StubBackend("b1", clock=clock, state=STOPPED)
    house = House(broken, loading, clock=clock, load_timeout=5, queue_timeout=1000)
    await fail(house)
    loading.state = STARTING
    waiting = house.ask()
    await turns()
    clock.now = 5.0
    await ends(waiting)
    assert isinstance(waiting.exception(), ModelLoading)


@pytest.mark.parametrize("outcome", [Verdict.SUCCESS, Verdict.FAILURE, Verdict.NEUTRAL])
async def test_after_its_pause_a_breaker_lets_one_call_through(clock: Clock, outcome: Verdict) -> None:
    backend = StubBackend(clock=clock)
    house = House(backend, clock=clock)
    await fail(house)
    assert backend.breaker.retry_at is not None
    clock.now = backend.breaker.retry_at
    probe, behind = await house.acquire(call()), house.ask()
    await turns()
    assert not behind.done()
    probe.release(outcome)
    await turns()
    if outcome is Verdict.FAILURE:
        assert isinstance(behind.exception(), NoBackend)
    else:
        behind.result().release()
    house.assert_empty()


# -- whatever happens ------------------------------------------------------------------------------

states = st.sampled_from([READY, READY, *BackendState])


@settings(derandomize=True, max_examples=150, deadline=None)
@given(
    strategy=st.sampled_from(Strategy),
    kinds=st.lists(
        st.tuples(states, st.booleans(), st.sampled_from([None, 0, 1, 2])), min_size=1, max_size=4
    ),
    tried=st.sets(st.integers(0, 3)),
    calls=st.integers(1, 8),
)
def test_what_is_picked_is_available(
    strategy: Strategy, kinds: list[tuple[BackendState, bool, int | None]], tried: set[int], calls: int
) -> None:
    async def run() -> None:
        backends = [StubBackend(f"b{i}", state, limit=limit) for i, (state, _, limit) in enumerate(kinds)]
        for backend, (_, is_open, _) in zip(backends, kinds, strict=True):
            for _ in range(STREAK * is_open):
                backend.breaker.on_failure(backend.breaker.on_begin())
        house = House(*backends)
        house._pool = pool = StubPool(backends, strategy)
        names = {f"b{i}": 0 for i in tried}
        tasks = []
        for _ in range(calls):
            free = {b.name for b in pool.known if is_ready(b) and b.name not in names}
            tasks.append(asyncio.create_task(house.acquire(call(), names)))
            await turns(3)
            if tasks[-1].done() and tasks[-1].exception() is None:
                assert tasks[-1].result().backend.name in free
            else:
                assert not free
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Lease):
                result.release()
        house.assert_empty()

    asyncio.run(run())


PICK = st.integers(0, 9)


class Machine(RuleBasedStateMachine):
    """Calls come, end, fail and leave, backends change: every lease counts once, at three places."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.leases: list[Lease] = []
        self.tasks: list[asyncio.Task[Lease]] = []

    @initialize(strategy=st.sampled_from(Strategy))
    def open(self, strategy: Strategy) -> None:
        self.backends = [
            StubBackend("a0", model="a", clock=self.clock),
            StubBackend("a1", model="a", limit=1, clock=self.clock),
            StubBackend("b0", model="b", state=STOPPED, clock=self.clock),
        ]
        for backend in self.backends:
            backend.breaker = Breaker(self.clock, random.Random(0))
        self.house = House(*self.backends, clock=self.clock, concurrent=3, queued=3)
        self.house._pool = self.house.pool = StubPool(self.backends, strategy)

    def do(self, act: Callable[[], object]) -> None:
        async def run() -> None:
            act()
            await self.settle()

        self.runner.run(run())

    async def settle(self) -> None:
        await turns(6)
        for task in [task for task in self.tasks if task.done()]:
            self.tasks.remove(task)
            if not task.cancelled() and task.exception() is None:
                self.leases.append(task.result())
            elif not task.cancelled():
                assert isinstance(task.exception(), BalancerError)

    @rule(
        model=st.sampled_from("ab"), priority=st.integers(0, 2), tried=st.sets(st.sampled_from(["a0", "a1"]))
    )
    def ask(self, model: str, priority: int, tried: set[str]) -> None:
        wanted = self.house.acquire(call(model, priority=priority), dict.fromkeys(tried, 0))
        self.do(lambda: self.tasks.append(asyncio.get_running_loop().create_task(wanted)))

    @precondition(lambda self: self.tasks)
    @rule(pick=PICK)
    def leave(self, pick: int) -> None:
        self.do(self.tasks[pick % len(self.tasks)].cancel)

    @precondition(lambda self: self.leases)
    @rule(pick=PICK, outcome=st.sampled_from(Verdict))
    def release(self, pick: int, outcome: Verdict) -> None:
        lease = self.leases.pop(pick % len(self.leases))
        self.do(lambda: lease.release(outcome))

    @precondition(lambda self: self.leases and self.tasks)
    @rule(pick=PICK, outcome=st.sampled_from(Verdict))
    def release_as_another_leaves(self, pick: int, outcome: Verdict) -> None:
        lease = self.leases.pop(pick % len(self.leases))

        def both() -> None:
            lease.release(outcome)
            self.tasks[pick % len(self.tasks)].cancel()

        self.do(both)

    @rule(pick=PICK, state=states, anew=st.booleans())
    def change(self, pick: int, state: BackendState, anew: bool) -> None:
        backend = self.backends[pick % 3]
        if anew:
            backend.start_anew()
        backend.state = state
        self.do(self.house.changed)

    @rule(seconds=st.sampled_from([1.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds
        self.do(self.house.changed)

    @invariant()
    def every_lease_counts_once(self) -> None:
        if hasattr(self, "house"):
            held = len(self.leases)
            assert held == self.house.running == sum(backend.inflight for backend in self.backends)
            assert held <= 3
            assert self.backends[1].inflight <= 1
            assert self.house.queue_depth == len(self.tasks)

    @invariant()
    def nobody_waits_beside_a_free_backend(self) -> None:
        if hasattr(self, "house") and self.house.running < 3:
            for waiter in self.house._waiting:
                for backend in self.house.pool.backends(waiter.call.model):
                    assert not is_ready(backend) or waiter.tried.get(backend.name) == backend.generation

    def teardown(self) -> None:
        if hasattr(self, "house"):
            for lease in self.leases:
                self.do(lease.release)
            self.leases.clear()
            for task in list(self.tasks):
                self.do(task.cancel)
            for lease in self.leases:
                self.do(lease.release)
            self.house.assert_empty()
        self.runner.close()


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None, derandomize=True)
test_no_order_of_events_loses_a_lease = Machine.TestCase
