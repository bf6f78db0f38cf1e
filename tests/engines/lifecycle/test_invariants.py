"""What holds whatever happens, in whatever order."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from engines.errors import EngineError
from engines.lifecycle.states import LoadOptions, ModelState

if TYPE_CHECKING:
    from conftest import House, Request, StubEngine

MAX_MODELS = 2
RAM = 4
SIZES = {"small": 1, "sleeper": 2, "large": 3, "huge": 5}

MODELS = st.sampled_from(sorted(SIZES))
OPTIONS = st.sampled_from([LoadOptions(), LoadOptions(), LoadOptions(engine="other")])
PICK = st.integers(0, 9)


class Machine(RuleBasedStateMachine):
    """``doomed`` engines crashed or were unloaded by force: their requests fail."""

    def __init__(self, house_type: type[House]) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.make = house_type
        self.doomed: list[StubEngine] = []
        self.users: dict[Request, StubEngine] = {}
        self.orders: list[asyncio.Task[Any]] = []

    @initialize()
    def open(self) -> None:
        async def make() -> House:
            return self.make(MAX_MODELS, RAM)

        self.house = self.runner.run(make())
        self.house.loader.slow_closes = True
        self.house.loader.sizes.update(SIZES)
        self.house.loader.sleeping_kinds = {"sleeper"}

    def do(self, act: Callable[[], object]) -> None:
        """``act`` on the event loop, and let everything happen that follows from it."""
        pinned = self.pinned()

        async def run() -> None:
            act()
            await self.settle()

        self.runner.run(run())
        assert pinned <= self.pinned(), "a pinned model was evicted or expired"

    async def settle(self) -> None:
        known = len(self.house.loader.started)
        await self.house.settle()
        for name, _ in self.house.loader.started[known:]:
            waited_for = any(request.model == name for request in self.house.waiting)
            assert waited_for or self.record(name).intended, f"nobody wants {name}"
        for request in self.house.running:
            if request not in self.users:
                self.users[request] = self.house.engine(request.model)

    def record(self, name: str) -> Any:
        return self.house.manager._records[name]

    def pinned(self) -> set[str]:
        statuses = self.house.manager.statuses()
        return {s.name for s in statuses if s.pinned and s.state is ModelState.READY}

    def gated(self) -> list[StubEngine]:
        return [e for e in self.house.loader.engines if e.gate and not e.gate.is_set()]

    # -- what can happen ---------------------------------------------------------------------------

    @rule(model=MODELS, keep_alive=st.sampled_from([None, None, -1.0, 0.0, 5.0]))
    def request_arrives(self, model: str, keep_alive: float | None) -> None:
        self.do(lambda: self.house.ask(model, keep_alive))

    @precondition(lambda self: self.house.waiting)
    @rule(pick=PICK)
    def waiter_leaves(self, pick: int) -> None:
        self.do(lambda: self.house.leave(self.house.waiting[pick % len(self.house.waiting)]))

    @precondition(lambda self: self.house.running)
    @rule(pick=PICK)
    def request_ends(self, pick: int) -> None:
        self.do(lambda: self.house.end(self.house.running[pick % len(self.house.running)]))

    @precondition(lambda self: self.house.loading)
    @rule(pick=PICK, error=st.sampled_from([None, None, None, EngineError("no"), ValueError("oops")]))
    def load_ends(self, pick: int, error: Exception | None) -> None:
        pending = list(self.house.loader.pending.values())
        load = pending[pick % len(pending)]
        self.do(lambda: load.set_exception(error) if error else load.set_result(None))

    @precondition(lambda self: self.gated())
    @rule(pick=PICK)
    def engine_may_close(self, pick: int) -> None:
        gates = [engine.gate for engine in self.gated() if engine.gate]
        self.do(gates[pick % len(gates)].set)

    @rule(seconds=st.sampled_from([0.0, 1.0, 5.0, 300.0]))
    def time_passes(self, seconds: float) -> None:
        self.runner.run(self.house.later(seconds))
        self.do(lambda: None)

    @rule(model=MODELS, options=OPTIONS, pin=st.sampled_from([None, True, False]), wait=st.booleans())
    def load_is_ordered(self, model: str, options: LoadOptions, pin: bool | None, wait: bool) -> None:
        async def load() -> None:
            if wait:
                await self.house.manager.load(model, options, pin=pin)
            else:
                self.house.manager.want(model, options, pin=pin)

        self.order(load)

    @rule(model=MODELS, force=st.booleans())
    def unload_is_ordered(self, model: str, force: bool) -> None:
        if force and self.house.state(model) in (ModelState.READY, ModelState.DRAINING):
            self.doomed.append(self.house.engine(model))
        self.order(lambda: self.house.manager.unload(model, force=force))

    @precondition(lambda self: any(self.house.manager.resident(name) for name in SIZES))
    @rule(pick=PICK)
    def engine_crashes(self, pick: int) -> None:
        engines = [self.house.engine(name) for name in sorted(SIZES) if self.house.manager.resident(name)]
        engine = engines[pick % len(engines)]
        self.doomed.append(engine)
        engine.healthy = False
        self.runner.run(self.house.later(1))
        self.do(lambda: None)

    def order(self, work: Callable[[], Awaitable[object]]) -> None:
        async def run() -> None:
            async def guarded() -> None:
                with contextlib.suppress(EngineError):
                    await work()

            self.orders.append(self.house.start(guarded()))
            await self.settle()

        self.runner.run(run())

    # -- what always holds -------------------------------------------------------------------------

    @invariant()
    def limits_are_kept(self) -> None:
        loader = self.house.loader
        awake = [e.size for e in loader.engines if not e.closed and not e.asleep]
        sizes = awake + [loader.sizes[name] for name in loader.pending]
        assert len(sizes) <= MAX_MODELS
        assert sum(sizes) <= RAM

    @invariant()
    def requests_are_counted(self) -> None:
        for status in self.house.manager.statuses():
            running = sum(request.model == status.name for request in self.house.running)
            assert status.inflight == running

    @invariant()
    def nobody_loses_the_engine(self) -> None:
        for request in self.house.running:
            engine = self.users[request]
            assert engine in self.doomed or not (engine.closed or engine.asleep)

    @invariant()
    def what_is_told_is_true(self) -> None:
        for status in self.house.manager.statuses():
            loading = status.name in self.house.loading
            assert not loading or status.state is ModelState.LOADING
            engine = self.house.manager.resident(status.name)
            assert (engine is not None) == (status.state is ModelState.READY)

    def teardown(self) -> None:
        try:
            if hasattr(self, "house"):
                self.runner.run(self.come_to_rest())
        finally:
            self.runner.close()

    async def come_to_rest(self) -> None:
        """When loads succeed and requests end, everybody was served or refused."""
        house = self.house
        for _ in range(40):
            for engine in self.gated():
                if engine.gate:
                    engine.gate.set()
            for load in list(house.loader.pending.values()):
                load.set_result(None)
            house.end(*list(house.running))
            await house.later(1)
        assert house.waiting == []
        assert all(order.done() for order in self.orders)
        await house.stop()


def test_no_order_of_events_breaks_a_promise(house_type: type[House]) -> None:
    run_state_machine_as_test(
        lambda: Machine(house_type),
        settings=settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True),
    )


# -- two models that take turns --------------------------------------------------------------------


@settings(deadline=None, derandomize=True)
@given(steps=st.lists(st.sampled_from(["a", "b", "a", "b", "end", "load"]), max_size=40))
def test_two_models_take_turns(house_type: type[House], steps: list[str]) -> None:
    """In the order of arrival, but one load for all that wait for the same model."""

    async def run() -> None:
        house = house_type(max_models=1)
        asked: list[Request] = []
        loads_before: dict[Request, int] = {}
        waited: dict[Request, int] = {}

        async def step(what: str) -> None:
            if what in "ab":
                before = len(house.loads)
                asked.append(house.ask(what))
                loads_before[asked[-1]] = before
            elif what == "end" and house.running:
                house.end(house.running[0])
            elif what == "load" and house.loading:
                await house.loaded(*house.loading)
            await house.settle()
            for request in house.served[len(waited) :]:
                waited[request] = len(house.loads) - loads_before[request]

        for what in [*steps, *["end", "load"] * (2 * len(steps) + 2)]:
            await step(what)
        for model in "ab":  # in order, nobody forgotten
            of_model = [request for request in asked if request.model == model]
            assert [request for request in house.served if request.model == model] == of_model
        assert max(waited.values(), default=0) <= 2  # the other model's load, then its own
        runs = len(list(itertools.groupby(request.model for request in asked)))
        assert len(house.loads) <= runs
        await house.stop()

    asyncio.run(run())
