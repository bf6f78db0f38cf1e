"""Readiness: one answer from a backend's state, limit and breaker."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from balancer.backends.base import BackendState, Verdict
from balancer.backends.readiness import Arrival, Busy, Coming, Gone, Ready
from balancer.errors import BalancerError, ModelLoading, NoBackend, NoRoom
from balancer.health.breaker import STREAK, Breaker
from balancer.instances import Deployment
from engines.errors import ModelLoadError
from support.balancing import Clock, StubBackend, World, call, turns

MakeWorld = Callable[..., World]


def opened(clock: Clock, **fields: object) -> StubBackend:
    """A backend whose breaker is open for 30 s."""
    backend = StubBackend(clock=clock, **fields)  # type: ignore[arg-type]
    backend.breaker = Breaker(clock, random.Random(0))
    for _ in range(STREAK):
        backend.end(backend.begin(call()), Verdict.FAILURE, 0.1)
    return backend


def test_its_limit_makes_it_busy() -> None:
    backend = StubBackend(limit=1)
    assert isinstance(backend.readiness(), Ready)
    ticket = backend.begin(call())
    assert isinstance(backend.readiness(), Busy)
    backend.end(ticket, Verdict.SUCCESS, 0.1)
    assert isinstance(backend.readiness(), Ready)


def test_its_breaker_sends_calls_away_and_its_probe_lets_them_wait(clock: Clock) -> None:
    backend = opened(clock)
    answer, retry_at = backend.readiness(), backend.breaker.retry_at
    assert isinstance(answer, Gone)
    assert retry_at is not None
    assert answer.explain().retry_after == retry_at - clock.now
    clock.now = retry_at
    assert isinstance(backend.readiness(), Ready)
    backend.begin(call())  # the probe
    assert isinstance(backend.readiness(), Busy)


def test_an_open_breaker_counts_before_the_limit(clock: Clock) -> None:
    backend = opened(clock, limit=1)
    backend.begin(call())
    assert isinstance(backend.readiness(), Gone)


@pytest.mark.parametrize("state", [state for state in BackendState if state is not BackendState.READY])
def test_in_any_other_state_the_breaker_has_no_say(clock: Clock, state: BackendState) -> None:
    backend = opened(clock)
    backend.state = state
    answer = backend.readiness()
    assert isinstance(answer, Coming | Gone)
    assert "failed too often" not in answer.explain().message


def test_each_call_is_told_an_error_of_its_own() -> None:
    """One that is raised twice would keep both tracebacks."""
    answer = StubBackend(state=BackendState.FAILED).readiness()
    assert isinstance(answer, Gone)
    assert answer.explain() is not answer.explain()


# -- managed backends ------------------------------------------------------------------------------


def told(world: World, index: int = 0) -> tuple[Arrival | None, BalancerError]:
    """How an instance that takes no calls comes, or None, and what calls are told."""
    answer = world.backends()[index].readiness()
    assert isinstance(answer, Coming | Gone)
    return (answer.arrival if isinstance(answer, Coming) else None), answer.explain()


async def test_an_instance_from_rest_to_ready_and_after_a_crash(make_world: MakeWorld) -> None:
    world = make_world()
    world.loader.go["a"] = go = asyncio.Event()
    arrival, error = told(world)
    assert (arrival, type(error)) == (Arrival.ON_DEMAND, NoRoom)
    world.manager.want("a")
    await turns()
    arrival, error = told(world)
    assert (arrival, type(error)) == (Arrival.STARTING, ModelLoading)
    go.set()
    await turns()
    (backend,) = world.backends()
    assert isinstance(backend.readiness(), Ready)
    world.engine(backend).healthy = False
    world.manager.look("a")
    await turns()
    arrival, error = told(world)
    assert (arrival, type(error)) == (Arrival.RESTARTING, NoBackend)
    assert error.message == "instance_0 of model a failed: no step for 60 s"


async def test_an_instance_that_makes_way_is_busy(make_world: MakeWorld) -> None:
    world = make_world()
    lease = await world.balancer.acquire(call("a"))
    other = world.start(world.balancer.acquire(call("b")))
    await turns()
    assert world.states() == ["ready"]
    assert isinstance(lease.backend.readiness(), Busy)
    lease.release()
    (await other).release()


async def test_a_replica_is_refused_as_its_models_first_instance_is(make_world: MakeWorld) -> None:
    """With the same time to come back: the replica is loaded only once that one is."""
    world = make_world(deployments={"a": Deployment(2)})
    world.loader.failures["a"] = ModelLoadError("the file is cut off")
    with pytest.raises(NoBackend):
        await world.balancer.acquire(call("a"))
    (_, first), (arrival, second) = told(world, 0), told(world, 1)
    assert arrival is None
    assert second.message == first.message == "model a cannot be served: the file is cut off"
    assert second.retry_after == first.retry_after
    assert second.retry_after
