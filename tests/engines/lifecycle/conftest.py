"""A manager with everything around it stood in for: loads, engines, requests, time."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from engines.base import Engine, EngineInfo, EngineStats, Health
from engines.errors import EngineError, ModelFileNotFound, ModelLoadError, UnsupportedFeature
from engines.lifecycle.admission import ModelLimits
from engines.lifecycle.manager import ModelManager
from engines.lifecycle.states import LoadOptions, ModelState, Retention
from engines.machine.footprint import Footprint
from engines.progress import PhaseProgress

T = TypeVar("T")

ROOMY = Footprint(ram=1000)


class StubEngine:
    """``gate``: what closing waits for. ``size``: bytes it takes while it is awake; ``kept``: asleep."""

    def __init__(self, name: str, size: int, *, sleeps: bool = False, kept: int = 0) -> None:
        capabilities = frozenset({"sleep"}) if sleeps else frozenset()
        self.size = size
        self.info = EngineInfo("stub", name, 8, 1, ("cpu",), capabilities, memory_asleep=kept)
        self.healthy = True
        self.asleep = self.closed = False
        self.gate: asyncio.Event | None = None
        self.close_error: Exception | None = None
        self.sleep_error: Exception | None = None
        self.wake_error: Exception | None = None
        self.wake_gate: asyncio.Event | None = None

    async def health(self) -> Health:
        return Health(self.healthy, "" if self.healthy else "no step for 60 s")

    def stats(self) -> EngineStats:
        return EngineStats()

    async def sleep(self) -> None:
        if "sleep" not in self.info.capabilities:
            raise UnsupportedFeature("it cannot sleep")
        if self.sleep_error:
            raise self.sleep_error
        self.asleep = True

    async def wake(self) -> None:
        if self.wake_gate:
            await self.wake_gate.wait()
        if self.wake_error:
            raise self.wake_error
        self.asleep = False

    async def close(self) -> None:
        if self.gate:
            await self.gate.wait()
        self.closed = True
        if self.close_error:
            raise self.close_error


class StubLoader:
    """Loads end when the test says so. Every model exists unless its name begins with "no-"."""

    def __init__(self) -> None:
        self.retentions: dict[str, Retention] = {}
        self.unread: dict[str, asyncio.Event] = {}
        self.studies: list[str] = []
        self.sizes: dict[str, int] = defaultdict(lambda: 1)
        self.real_sizes: dict[str, int] = {}
        self.unreadable: dict[str, str] = {}
        self.sleeping_kinds: set[str] = set()
        self.kept_asleep = 0
        self.slow_closes = False
        self.slow_cleanup: asyncio.Event | None = None
        self.pending: dict[str, asyncio.Future[None]] = {}
        self.started: list[tuple[str, LoadOptions]] = []
        self.engines: list[StubEngine] = []
        self.cleanups = 0

    def retention(self, name: str) -> Retention:
        if name.startswith("no-"):
            raise ModelFileNotFound(f"there is no model {name}")
        return self.retentions.get(name, Retention())

    def estimate(self, name: str, options: LoadOptions) -> Footprint:
        if name in self.unreadable:
            raise ModelLoadError(self.unreadable[name])
        return Footprint(ram=(options.context_length or 1) * self.sizes[name])

    def can_estimate(self, name: str, options: LoadOptions) -> bool:
        return name not in self.unread

    async def study(self, name: str, options: LoadOptions) -> None:
        self.studies.append(name)
        await self.unread[name].wait()

    def measured(self, name: str, engine: Engine) -> Footprint | None:
        size = self.real_sizes.get(engine.info.model)
        return None if size is None else Footprint(ram=size)

    async def load(self, name: str, options: LoadOptions, report: PhaseProgress) -> StubEngine:
        assert name not in self.pending, "two loads of one model at once"
        self.started.append((name, options))
        self.pending[name] = asyncio.get_running_loop().create_future()
        report("reading", 0.5)
        try:
            await self.pending[name]
        except asyncio.CancelledError:
            if self.slow_cleanup:
                await self.slow_cleanup.wait()
            self.cleanups += 1
            raise
        finally:
            del self.pending[name]
        size, sleeps = self.estimate(name, options).ram, name in self.sleeping_kinds
        engine = StubEngine(name, size, sleeps=sleeps, kept=self.kept_asleep)
        engine.gate = asyncio.Event() if self.slow_closes else None
        self.engines.append(engine)
        return engine


@dataclass(frozen=True, slots=True)
class Request:
    number: int
    model: str
    keep_alive: float | None = None


class House:
    """The manager and the requests, which wait in one queue as the balancer keeps it."""

    def __init__(self, max_models: int = 1, ram: int = ROOMY.ram) -> None:
        self.now = 0.0
        self.loader = StubLoader()
        self.waiting: list[Request] = []
        self.running: list[Request] = []
        self.refused: dict[Request, EngineError] = {}
        self.served: list[Request] = []
        self._alarm: asyncio.Event | None = None
        self._numbers = itertools.count()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.manager = ModelManager(
            self.loader,  # type: ignore[arg-type]
            ModelLimits(max_models, Footprint(ram=ram)),
            on_change=self.changed,
            clock=lambda: self.now,
            sleep=self._sleep,
        )
        self.manager.start()

    # -- requests ----------------------------------------------------------------------------------

    def ask(self, model: str, keep_alive: float | None = None) -> Request:
        request = Request(next(self._numbers), model, keep_alive)
        self.waiting.append(request)
        self.changed()
        return request

    def leave(self, request: Request) -> None:
        self.waiting.remove(request)
        self.changed()

    def end(self, *requests: Request) -> None:
        for request in requests:
            self.running.remove(request)
            self.manager.release(request.model)

    def changed(self) -> None:
        for request in list(self.waiting):
            if self.manager.can_serve(request.model):
                self.waiting.remove(request)
                self.manager.hold(request.model, request.keep_alive)
                self.running.append(request)
                self.served.append(request)
            elif reason := self.manager.refusal(request.model):
                self.waiting.remove(request)
                self.refused[request] = reason
        self.manager.demand(dict.fromkeys(request.model for request in self.waiting))

    # -- models ------------------------------------------------------------------------------------

    def state(self, name: str) -> ModelState:
        return self.manager.status(name).state

    @property
    def loading(self) -> set[str]:
        return set(self.loader.pending)

    @property
    def loads(self) -> list[str]:
        """Names of all models whose load ever began, in order."""
        return [name for name, _ in self.loader.started]

    def engine(self, name: str) -> StubEngine:
        """The last one that was made for the model."""
        return next(e for e in reversed(self.loader.engines) if e.info.model == name)

    async def loaded(self, *names: str) -> None:
        """Their loads, which must be under way, succeed."""
        await self.settle()
        for name in names:
            self.loader.pending[name].set_result(None)
        await self.settle()

    async def load_fails(self, name: str, error: Exception | str) -> None:
        await self.settle()
        self.loader.pending[name].set_exception(ModelLoadError(error) if isinstance(error, str) else error)
        await self.settle()

    async def serve(self, name: str, keep_alive: float | None = None) -> None:
        """A request comes, has the model loaded if need be, and ends."""
        request = self.ask(name, keep_alive)
        await self.settle()
        if request not in self.running:
            await self.loaded(name)
        self.end(request)
        await self.settle()

    # -- time --------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Let everything happen that can happen without time."""
        for _ in range(12):
            await asyncio.sleep(0)

    async def later(self, seconds: float) -> None:
        """Time passes, and the manager's watch notices."""
        await self.settle()
        self.now += seconds
        assert self._alarm is not None, "the watch does not sleep: it has died"
        self._alarm.set()
        await self.settle()

    async def _sleep(self, seconds: float) -> None:
        self._alarm = asyncio.Event()
        try:
            await self._alarm.wait()
        finally:
            self._alarm = None

    def start(self, work: Coroutine[None, None, T]) -> asyncio.Task[T]:
        """Run ``work``, what an administrator asks for, beside the test."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def next_change(self, name: str) -> None:
        await self.manager._lifecycle.next_change(self.manager._records[name])

    async def stop(self) -> None:
        """Stop, and check that nothing is left behind."""
        for engine in self.loader.engines:
            if engine.gate:
                engine.gate.set()
        await self.manager.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not self.loader.pending
        assert [e.info.model for e in self.loader.engines if not e.closed] == []
        assert self.manager.used == Footprint()


@pytest.fixture(scope="session")
def house_type() -> type[House]:
    return House


@pytest.fixture
async def make_house() -> AsyncIterator[Callable[..., House]]:
    """Makes houses that are stopped, and checked for leftovers, after the test."""
    houses: list[House] = []

    def make(max_models: int = 1, ram: int = ROOMY.ram) -> House:
        houses.append(House(max_models, ram))
        return houses[-1]

    yield make
    for house in houses:
        async with asyncio.timeout(5):
            await house.stop()


@pytest.fixture
async def house(make_house: Callable[..., House]) -> House:
    """One model at a time, memory without end."""
    return make_house()
