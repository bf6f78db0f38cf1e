"""Whatever happens to instances, however long their loads take: the work is bounded and comes to rest."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from balancer.instances import Deployment, InstanceKind
from balancer.lease import Lease
from engines.errors import EngineError
from engines.lifecycle.states import ModelState
from support.balancing import Setup, World, call, turns

MOST = 12  # instances of a model
MODELS = st.sampled_from(["a", "b"])
PICK = st.integers(0, 9)
# How long an event is looked at before the next comes: at every moment of a load or of its end.
TICKS = st.integers(0, 40)
# Of one event: a start and an end of each instance of both models, and what each of them changes.
MOST_CALLBACKS = 6 * MOST
# Beside the orders: of each instance a load, an unload, a look at its health, and a retirement.
MOST_TASKS = 4 * MOST


def slow_world(ticks: int = 5, **setup: Any) -> World:
    """A world whose loads take time, and how often its manager says that something changed."""
    kinds = {"a": Deployment(9, InstanceKind.PROCESS), "b": Deployment(2)}
    world = World(Setup(**{"deployments": kinds, "ram": 10 * MOST, "max_models": 2, **setup}))
    world.loader.ticks = ticks
    return world


class Callbacks:
    """The count of a world's callbacks, and of those that came in the middle of another."""

    def __init__(self, world: World) -> None:
        self.count = self.depth = self.deepest = 0
        self._work = world.fleet._take_up
        world.fleet.states_changed._work = self._take_up

    def _take_up(self) -> None:
        self.count += 1
        self.depth += 1
        self.deepest = max(self.deepest, self.depth)
        try:
            self._work()
        finally:
            self.depth -= 1


class Machine(RuleBasedStateMachine):
    """Events at any moment, over loads that take several turns of the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.orders: list[asyncio.Task[Any]] = []
        self.leases: list[Lease] = []

    @initialize(ticks=st.integers(0, 8))
    def open(self, ticks: int) -> None:
        async def make() -> None:
            self.world = slow_world(ticks)
            self.callbacks = Callbacks(self.world)

        self.runner.run(make())

    def do(self, act: Callable[[], object], ticks: int) -> None:
        self.runner.run(self.watched(act, ticks))

    async def watched(self, act: Callable[[], object], ticks: int) -> None:
        before = self.callbacks.count
        act()
        for _ in range(ticks):
            await asyncio.sleep(0)
            assert len(asyncio.all_tasks()) <= MOST_TASKS + len(self.orders)
        self.leases += [o.result() for o in self.orders if o.done() and isinstance(o.result(), Lease)]
        self.orders = [order for order in self.orders if not order.done()]
        assert self.callbacks.count - before <= MOST_CALLBACKS
        assert self.callbacks.deepest <= 1

    def order(self, work: Callable[[], Awaitable[object]], ticks: int) -> None:
        async def guarded() -> object:
            with contextlib.suppress(EngineError):
                return await work()
            return None

        self.do(lambda: self.orders.append(self.world.start(guarded())), ticks)

    # -- what can happen ---------------------------------------------------------------------------

    @rule(model=MODELS, keep_alive=st.sampled_from([None, 0.0, -1.0]), ticks=TICKS)
    def call_arrives(self, model: str, keep_alive: float | None, ticks: int) -> None:
        self.order(lambda: self.world.balancer.acquire(call(model, keep_alive=keep_alive)), ticks)

    @precondition(lambda self: self.leases)
    @rule(pick=PICK, ticks=TICKS)
    def call_ends(self, pick: int, ticks: int) -> None:
        self.do(self.leases.pop(pick % len(self.leases)).release, ticks)

    @rule(model=MODELS, count=st.integers(1, MOST), ticks=TICKS)
    def model_is_scaled(self, model: str, count: int, ticks: int) -> None:
        self.do(lambda: self.world.fleet.scale(model, count), ticks)

    @rule(model=MODELS, ticks=TICKS)
    def load_is_ordered(self, model: str, ticks: int) -> None:
        async def load() -> None:
            self.world.fleet.ensure(model)
            await self.world.manager.load(model, patience=0.0)

        self.order(load, ticks)

    @rule(model=MODELS, force=st.booleans(), ticks=TICKS)
    def unload_is_ordered(self, model: str, force: bool, ticks: int) -> None:
        self.order(lambda: self.world.fleet.unload(model, force=force), ticks)

    @rule(model=MODELS, pick=PICK, ticks=TICKS)
    def instance_is_restarted(self, model: str, pick: int, ticks: int) -> None:
        backends = self.world.backends(model)
        self.order(lambda: self.world.fleet.restart(backends[pick % len(backends)]), ticks)

    @rule(pick=PICK, ticks=TICKS)
    def engine_breaks(self, pick: int, ticks: int) -> None:
        open_engines = [engine for engine in self.world.loader.engines if not engine.closed]
        if open_engines:
            open_engines[pick % len(open_engines)].healthy = False
        self.do(lambda: self.world.pass_time(1.0), ticks)

    @rule(seconds=st.sampled_from([1.0, 60.0]), ticks=TICKS)
    def time_passes(self, seconds: float, ticks: int) -> None:
        self.do(lambda: self.world.pass_time(seconds), ticks)

    # -- and then ----------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if hasattr(self, "world"):
                self.runner.run(self.come_to_rest())
        finally:
            if hasattr(self, "world"):
                self.world.fleet._replicas.close()  # else what failed above might never end
            self.runner.close()

    async def come_to_rest(self) -> None:
        for _ in range(40):
            while self.leases:
                self.leases.pop().release()
            await self.watched(lambda: self.world.pass_time(60.0), 40)
        assert self.orders == []
        before = self.callbacks.count
        await turns(50)
        assert self.callbacks.count == before, "nothing happens, and yet it works"
        for model in "ab":
            first, *replicas = (self.world.manager.state(b.instance.key) for b in self.world.backends(model))
            expected = ModelState.READY if first is ModelState.READY else ModelState.STOPPED
            assert set(replicas) <= {expected}
        await self.world.stop()


def test_no_order_of_events_keeps_it_busy() -> None:
    """Failures are not made shorter: what never ends takes too long for that."""
    phases = [Phase.explicit, Phase.generate]
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=15, stateful_step_count=25, deadline=None, derandomize=True, phases=phases
        ),
    )


@pytest.mark.parametrize("count", [2, 9, 30])
@pytest.mark.parametrize("how", ["unload", "keep_alive", "switch", "stop"])
async def test_a_model_goes_while_its_instances_are_loaded(how: str, count: int) -> None:
    """Unloads that began unloads took all time and memory, from eight instances on."""
    kinds = {"a": Deployment(count, InstanceKind.PROCESS), "b": Deployment(1)}
    world = slow_world(deployments=kinds, ram=1000, max_models=1)
    callbacks = Callbacks(world)
    lease = await world.balancer.acquire(call("a", keep_alive=0.0 if how == "keep_alive" else None))
    await turns(3)
    assert world.states().count("starting") == count - 1
    before = callbacks.count
    match how:
        case "unload":
            going = world.start(world.fleet.unload("a"))
            await turns(2)
            lease.release()
            await going
        case "keep_alive":
            lease.release()
        case "switch":
            lease.release()
            (await world.balancer.acquire(call("b"))).release()
        case "stop":
            lease.release()
            await world.stop()
    for _ in range(40):
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) <= 6 * count + 8
    assert callbacks.count - before <= 6 * count + 8
    assert set(world.states()) == {"stopped"}
    if how != "stop":
        await world.stop()
