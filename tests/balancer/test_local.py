"""Backends over the model manager: what callers see of a model's states."""

from __future__ import annotations

import asyncio

import pytest

from balancer.backend import BackendState, Call, Reply
from balancer.balancer import Balancer, Limits
from balancer.errors import ModelLoading, NoBackend, NoRoom, UnknownModel
from balancer.local import LocalPool
from engines.base import Engine
from engines.errors import ModelFileNotFound, ModelLoadError
from engines.fake import FakeEngine
from engines.manager import manager
from engines.manager.footprint import Footprint
from engines.manager.lifecycle import Report
from engines.manager.manager import ModelManager
from engines.manager.states import LoadOptions, Policy

MODELS = ("a", "b", "huge")


class StubLoader:
    """Loads at once, unless told to wait or fail."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.failure: ModelLoadError | None = None
        self.loads: list[str] = []

    def policy(self, name: str) -> Policy:
        if name not in MODELS:
            raise ModelFileNotFound(f"there is no model {name}")
        return Policy()

    def estimate(self, name: str, options: LoadOptions) -> Footprint:
        return Footprint(ram=99 if name == "huge" else 1)

    def measured(self, engine: Engine) -> None:
        return None

    async def load(self, name: str, options: LoadOptions, report: Report) -> Engine:
        self.loads.append(name)
        report("loading", 0.5)
        await self.go.wait()
        if self.failure is not None:
            raise self.failure
        return FakeEngine(name)


class World:
    def __init__(self, **limits: float) -> None:
        self.loader = StubLoader()
        self.manager = ModelManager(self.loader, manager.Limits(max_models=1, budget=Footprint(ram=9)))
        self.pool = LocalPool(self.manager)
        self.balancer = Balancer(Limits(**limits), self.pool)  # type: ignore[arg-type]
        self.manager.on_change = self.balancer.changed


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def nothing(engine: Engine) -> Reply:
    raise NotImplementedError


def call(model: str = "a", keep_alive: float | None = None) -> Call:
    return Call("r", model, "/", b"", stream=False, run=nothing, keep_alive=keep_alive)


async def test_a_call_loads_its_model() -> None:
    world = World()
    (backend,) = world.pool.backends("a")
    assert (backend.state, backend.available) == (BackendState.STOPPED, False)
    lease = await world.balancer.acquire(call())
    assert (backend.state, backend.available, backend.inflight) == (BackendState.READY, True, 1)
    assert backend.status().info is not None
    lease.release()
    assert (backend.inflight, world.manager.status("a").inflight) == (0, 0)
    assert [status.model for status in world.balancer.statuses()] == ["a"]


async def test_unknown_models() -> None:
    with pytest.raises(UnknownModel, match="there is no model other"):
        await World().balancer.acquire(call("other"))


async def test_a_call_for_another_model_switches_once_the_first_is_idle() -> None:
    world = World()
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


async def test_a_load_that_takes_too_long_says_how_far_it_is() -> None:
    world = World(load_timeout=0.01)
    world.loader.go.clear()
    with pytest.raises(ModelLoading) as refused:
        await world.balancer.acquire(call())
    assert (refused.value.state, refused.value.progress) == ("loading", 0.5)
    assert refused.value.retry_after
    await world.manager.stop()


async def test_waiting_too_long_for_room() -> None:
    world = World(queue_timeout=0.01)
    lease = await world.balancer.acquire(call("a"))
    with pytest.raises(NoRoom, match="in use") as refused:
        await world.balancer.acquire(call("b"))
    assert refused.value.retry_after
    (await world.balancer.acquire(call("a"))).release()  # nobody needs to make way any more
    lease.release()


async def test_what_never_fits_is_refused_at_once() -> None:
    with pytest.raises(NoRoom, match="MAX_MEMORY"):
        await World().balancer.acquire(call("huge"))


async def test_a_failed_load_says_why_and_when_to_come_back() -> None:
    world = World()
    world.loader.failure = ModelLoadError("the file is cut off")
    for _ in range(2):
        with pytest.raises(NoBackend, match="the file is cut off") as refused:
            await world.balancer.acquire(call())
        assert refused.value.retry_after
    assert world.loader.loads == ["a"]  # the second was refused by the cool-down


async def test_keep_alive_of_a_call_counts_from_its_end() -> None:
    world = World()
    (await world.balancer.acquire(call(keep_alive=0))).release()
    await turns()
    assert world.manager.engine("a") is None


async def test_an_engine_that_went_away_under_a_lease() -> None:
    world = World()
    lease = await world.balancer.acquire(call())
    await world.manager.unload("a", force=True)
    with pytest.raises(NoBackend):
        await lease.backend.run(call())
    lease.release()
