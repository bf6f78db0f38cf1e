"""Backends over the model manager: what callers see of a model's states."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from balancer import balancer as module
from balancer.backends.base import BackendState, Verdict
from balancer.call import ResumePoint
from balancer.errors import BalancerError, CannotServe, ModelLoading, NoBackend, NoRoom, UnknownModel
from balancer.health.breaker import STREAK
from engines.errors import BadModelFile, CannotLoad, ModelFileNotFound, ModelLoadError
from engines.lifecycle.errors import NeverFits
from support.balancing import World, call, is_ready, turns

MakeWorld = Callable[..., World]


async def refusal(world: World, seconds: float, model: str = "a") -> BalancerError:
    """Why a call is refused when it has waited for ``seconds``."""
    waiting = asyncio.create_task(world.balancer.acquire(call(model)))
    await turns()
    world.clock.now += seconds
    async with asyncio.timeout(5):
        await asyncio.wait((waiting,))
    error = waiting.exception()
    assert isinstance(error, BalancerError)
    return error


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting calls look at the clock all the time."""
    monkeypatch.setattr(module, "LOOK_AGAIN", 0.0)


async def test_a_call_loads_its_model(make_world: MakeWorld) -> None:
    world = make_world()
    (backend,) = world.backends("a")
    assert (backend.state, is_ready(backend)) == (BackendState.STOPPED, False)
    lease = await world.balancer.acquire(call("a"))
    assert (backend.state, is_ready(backend), backend.inflight) == (BackendState.READY, True, 1)
    assert backend.status().info is not None
    assert world.manager.status("a").inflight == 1
    lease.release()
    assert (backend.inflight, world.manager.status("a").inflight) == (0, 0)
    assert [status.model for status in world.balancer.statuses()] == ["a"]


async def test_unknown_models(make_world: MakeWorld) -> None:
    with pytest.raises(UnknownModel, match="there is no model 'other'"):
        await make_world().balancer.acquire(call("other"))


async def test_a_call_for_another_model_switches_once_the_first_is_idle(make_world: MakeWorld) -> None:
    world = make_world()
    first = await world.balancer.acquire(call("a"))
    second = asyncio.create_task(world.balancer.acquire(call("b")))
    late = asyncio.create_task(world.balancer.acquire(call("a")))
    await turns()
    assert not second.done()
    first.release()
    lease = await second
    assert not late.done()  # it came after the one for b
    lease.release()
    (await late).release()
    assert world.loader.loads == ["a", "b", "a"]


async def test_a_load_that_takes_too_long_says_how_far_it_is(make_world: MakeWorld) -> None:
    world = make_world(limits={"load_timeout": 5})
    world.loader.go["a"] = asyncio.Event()
    error = await refusal(world, 5)
    assert isinstance(error, ModelLoading)
    assert (error.state, error.progress) == ("loading", 0.5)
    assert error.retry_after


async def test_waiting_too_long_for_room(make_world: MakeWorld) -> None:
    world = make_world(limits={"queue_timeout": 5})
    lease = await world.balancer.acquire(call("a"))
    error = await refusal(world, 5, "b")
    assert isinstance(error, NoRoom)
    assert "in use" in error.message
    assert error.retry_after
    (await world.balancer.acquire(call("a"))).release()  # nobody needs to make way any more
    lease.release()


async def test_what_never_fits_is_refused_at_once(make_world: MakeWorld) -> None:
    with pytest.raises(CannotServe, match="MAX_MEMORY") as refused:
        await make_world(sizes={"a": 99}, ram=9).balancer.acquire(call("a"))
    assert isinstance(refused.value.reason, NeverFits)


@pytest.mark.parametrize("kind", [CannotLoad, BadModelFile, ModelFileNotFound])
async def test_what_only_somebody_can_mend_is_told_as_that(
    make_world: MakeWorld, kind: type[ModelLoadError]
) -> None:
    """Also to those that wait in the queue: it is no fault that passes."""
    world = make_world()
    world.loader.failures["a"] = kind("the file is odd")
    calls = (world.balancer.acquire(call("a")) for _ in range(3))
    for refused in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(refused, CannotServe)
        assert type(refused.reason) is kind
        assert "model a cannot be served: the file is odd" in refused.message
        assert refused.retry_after is None
    assert world.loader.loads == ["a"]


async def test_a_failed_load_says_why_and_when_to_come_back(make_world: MakeWorld) -> None:
    world = make_world()
    world.loader.failures["a"] = ModelLoadError("the file is cut off")
    for _ in range(2):
        with pytest.raises(NoBackend, match="the file is cut off") as refused:
            await world.balancer.acquire(call("a"))
        assert refused.value.retry_after
    assert world.loader.loads == ["a"]  # the second was refused by the cool-down


async def test_waiting_too_long_for_what_crashed(make_world: MakeWorld) -> None:
    world = make_world(limits={"queue_timeout": 0.5})
    await world.ready()
    world.engine(world.backends()[0]).healthy = False
    await world.later(1)
    error = await refusal(world, 0.5)
    assert isinstance(error, NoBackend)
    assert "no step for 60 s" in error.message


async def test_keep_alive_of_a_call_counts_from_its_end(make_world: MakeWorld) -> None:
    world = make_world()
    (await world.balancer.acquire(call("a", keep_alive=0))).release()
    await turns()
    assert world.manager.resident("a") is None


async def test_who_waits_for_a_place_only_goes_before_the_expiry(make_world: MakeWorld) -> None:
    world = make_world(limits={"concurrent": 1})
    lease = await world.balancer.acquire(call("a", keep_alive=0))
    waiting = asyncio.create_task(world.balancer.acquire(call("a")))
    await turns()
    lease.release()
    (await waiting).release()
    assert world.loader.loads == ["a"]


async def test_an_engine_that_went_away_under_a_lease(make_world: MakeWorld) -> None:
    world = make_world()
    lease = await world.balancer.acquire(call("a"))
    await world.fleet.unload("a", force=True)
    with pytest.raises(NoBackend, match="instance_0 of model a went away"):
        await lease.backend.run(call("a"))
    lease.release()


async def test_a_call_runs_on_the_engine_from_where_it_was_begun(make_world: MakeWorld) -> None:
    world = make_world()
    lease = await world.balancer.acquire(call("a"))
    reply = await lease.backend.run(call("a"), ResumePoint((0, 1), created=1))
    assert await anext(reply.body) == b"2"
    with pytest.raises(NoBackend, match="only relayed"):
        await lease.backend.run(call("a", run=None))
    reply.body.close()
    lease.release()


async def test_a_failed_call_has_its_engine_looked_at(make_world: MakeWorld) -> None:
    world = make_world()
    lease = await world.balancer.acquire(call("a"))
    engine = world.engine(lease.backend)
    engine.healthy = False
    lease.release(Verdict.FAILURE)
    await turns()
    assert (engine.closed, world.states()) == (True, ["failed"])


@pytest.mark.parametrize(("failures", "state"), [(STREAK, "open"), (0, "closed")])
async def test_what_was_started_anew_has_a_fresh_breaker(
    make_world: MakeWorld, failures: int, state: str
) -> None:
    """And calls from before have no say in it."""
    world = make_world()
    leases = [await world.balancer.acquire(call("a")) for _ in range(2 * STREAK)]
    backend = leases[0].backend
    for lease in leases[:failures]:
        lease.release(Verdict.FAILURE)
    assert (backend.breaker.state, backend.generation) == (state, 1)
    await world.fleet.unload("a", force=True)
    await world.manager.load("a")
    assert (backend.breaker.state, backend.generation) == ("closed", 2)
    for lease in leases[failures:]:
        lease.release(Verdict.FAILURE)
    assert backend.breaker.state == "closed"
    assert is_ready(backend)
