"""Stand-ins for what the balancer deals with: backends and their answers, models and engines, time."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, TypeVar

from app.dialects.openai.wire import WIRE
from balancer.backends.base import Backend, BackendState, BackendStatus
from balancer.backends.local import LocalBackend
from balancer.backends.managed import ManagedBackend
from balancer.backends.readiness import Arrival, Coming, Gone, Ready
from balancer.balancer import Balancer, QueueLimits
from balancer.call import Call, Reply, ResumePoint, Target
from balancer.errors import ModelLoading, NoBackend, NoRoom, UnknownModel
from balancer.fleet import Fleet
from balancer.instances import Deployment, Instance, InstanceKind, InstanceLoader, Instances
from balancer.policies import Policy as Strategist
from balancer.policies import Strategy, make_policy
from engines.base import EngineInfo, EngineStats, Health, Usage
from engines.errors import EngineError, ModelFileNotFound, ModelLoadError
from engines.lifecycle.admission import ModelLimits
from engines.lifecycle.manager import ModelManager
from engines.lifecycle.states import LoadOptions, Retention
from engines.machine.footprint import Footprint
from engines.progress import PhaseProgress
from support.clock import Clock

T = TypeVar("T")


async def turns(count: int = 20) -> None:
    """Let everything happen that can happen without time."""
    for _ in range(count):
        await asyncio.sleep(0)


def call(model: str = "m", **fields: Any) -> Call:
    given: dict[str, Any] = {"stream": True, "wire": WIRE, "run": stream} | fields
    return Call("r", Target(model, None, model), "/v1/chat/completions", b"{}", **given)


# -- answers ---------------------------------------------------------------------------------------


class Body:
    """Gives ``pieces`` in order and raises those that are exceptions; a pause ends with `resume`."""

    PAUSE = object()

    def __init__(self, *pieces: Any, resume_point: ResumePoint | None = None) -> None:
        self._pieces = deque(pieces)
        self._resume_point = resume_point
        self._go = asyncio.Event()
        self.closes = 0

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        if self.closes or not self._pieces:
            raise StopAsyncIteration
        piece = self._pieces.popleft()
        if piece is self.PAUSE:
            await self._go.wait()
            return await self.__anext__()
        if isinstance(piece, Exception):
            raise copy(piece)  # a traceback grows each time
        assert isinstance(piece, bytes)
        return piece

    def resume(self) -> None:
        self._go.set()

    def close(self) -> None:
        self.closes += 1

    def resume_point(self) -> ResumePoint | None:
        assert not self.closes, "a body has to be asked before it is closed"
        return self._resume_point

    def usage(self) -> Usage | None:
        return None


def reply(*pieces: Any, status: int = 200, at: int | None = None) -> Reply:
    """``at``: it could go on elsewhere after that many tokens."""
    resume_point = None if at is None else ResumePoint(tuple(range(at)), created=1)
    return Reply(status, [], Body(*pieces, resume_point=resume_point))


# -- backends --------------------------------------------------------------------------------------


def is_ready(backend: Backend) -> bool:
    """Whether a call may be sent there now."""
    return isinstance(backend.readiness(), Ready)


class StubBackend(Backend):
    """Answers what it is told to: replies, exceptions, or a future of one of them; "ok" if told nothing."""

    kind = "stub"

    def __init__(
        self,
        name: str = "b0",
        state: BackendState = BackendState.READY,
        model: str = "m",
        *,
        answers: Iterable[Any] = (),
        limit: int | None = None,
        managed: bool = False,
        clock: Callable[[], float] = Clock(),  # noqa: B008 - one that stands still
    ) -> None:
        super().__init__(name, limit=limit, clock=clock)
        self.is_managed = managed
        self.model = model
        self.answers = deque(answers)
        self.replies: list[Reply] = []
        self.asked: list[ResumePoint | None] = []
        self.suspicions = 0
        self.progress = 0.0
        self._state = state
        self._generation = 0

    @property
    def state(self) -> BackendState:
        return self._state

    @state.setter
    def state(self, state: BackendState) -> None:
        self._state = state

    @property
    def generation(self) -> int:
        return self._generation

    def start_anew(self) -> None:
        self._generation += 1
        self.breaker.reset()
        self._state = BackendState.READY

    def serves(self, model: str) -> bool:
        return model == self.model

    def _absence(self) -> Coming | Gone:
        match self._state:
            case BackendState.FAILED:
                return Gone(lambda: NoBackend("why", retry_after=7.0))
            case BackendState.STARTING:
                return Coming(Arrival.STARTING, self._loading)
            case _:
                return Coming(Arrival.ON_DEMAND, lambda: NoRoom("all are in use"))

    def _loading(self) -> ModelLoading:
        return ModelLoading(
            "loading", retry_after=3.0, state=self._state, progress=self.progress, eta_seconds=3.0
        )

    async def run(self, call: Call, resume_point: ResumePoint | None = None) -> Reply:
        self.asked.append(resume_point)
        answer = self.answers.popleft() if self.answers else reply(b"ok")
        if asyncio.isfuture(answer):
            answer = await answer
        if isinstance(answer, Exception):
            raise copy(answer)
        assert isinstance(answer, Reply)
        self.replies.append(answer)
        return answer

    def status(self) -> BackendStatus:
        return BackendStatus(**self.figures(), models=(self.model,))

    def suspect(self) -> None:
        self.suspicions += 1


class StubPool:
    """The backends it is given, behind one strategy for all, or in order; remembers what was demanded."""

    def __init__(self, backends: Sequence[StubBackend], strategy: Strategy | None = None) -> None:
        self.known = list(backends)
        self.demanded: list[list[str]] = []
        rng = random.Random(0)
        self._strategist: Strategist | None = None if strategy is None else make_policy(strategy, rng)

    def backends(self, model: str, adapter: str | None = None) -> list[StubBackend]:
        found = [backend for backend in self.known if backend.serves(model)]
        if not found:
            raise UnknownModel(model)
        return found

    def select(self, model: str, ready: Sequence[Backend], call: Call) -> Backend | None:
        return ready[0] if self._strategist is None else self._strategist.select(ready, ())

    def demand(self, models: Iterable[str]) -> None:
        self.demanded.append(list(models))

    def statuses(self) -> list[BackendStatus]:
        return [backend.status() for backend in self.known]


# -- models ----------------------------------------------------------------------------------------


class StubEngine:
    """``bodies`` are the answers that it is giving."""

    def __init__(self, name: str) -> None:
        self.info = EngineInfo("stub", name, 8, 1, ("cpu",), frozenset())
        self.healthy = True
        self.closed = False
        self.bodies: list[EngineBody] = []

    async def health(self) -> Health:
        return Health(self.healthy, "" if self.healthy else "no step for 60 s")

    def stats(self) -> EngineStats:
        return EngineStats()

    async def sleep(self) -> None:
        raise NotImplementedError

    async def wake(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        self.closed = True
        self.break_all("the model is being unloaded")

    def break_all(self, message: str) -> None:
        for body in self.bodies:
            body.put(EngineError(message))


class EngineBody:
    """An answer of ``b"0"``, ``b"1"``, ...: token after token, as it is told to go on."""

    def __init__(self, engine: StubEngine, begun: ResumePoint | None) -> None:
        self._engine = engine
        self._items: asyncio.Queue[bytes | EngineError | None] = asyncio.Queue()
        self.tokens = list(begun.token_ids) if begun is not None else []
        self.closes = 0
        engine.bodies.append(self)

    def put(self, item: bytes | EngineError | None) -> None:
        self._items.put_nowait(item)

    def step(self) -> None:
        self.put(b"%d" % len(self.tokens))
        self.tokens.append(len(self.tokens))

    def end(self) -> None:
        self.put(None)

    def __aiter__(self) -> EngineBody:
        return self

    async def __anext__(self) -> bytes:
        item = await self._items.get()
        if item is None:
            raise StopAsyncIteration
        if isinstance(item, EngineError):
            raise item
        return item

    def close(self) -> None:
        self.closes += 1
        if self in self._engine.bodies:
            self._engine.bodies.remove(self)

    def resume_point(self) -> ResumePoint | None:
        return ResumePoint(tuple(self.tokens), created=1)

    def usage(self) -> Usage | None:
        return None


async def stream(engine: Any, resume_point: ResumePoint | None) -> Reply:
    """A call's way to run on a `StubEngine`: its first token is there at once."""
    body = EngineBody(engine, resume_point)
    body.step()
    return Reply(200, [], body)


class StubLoader:
    """Knows ``sizes``, by model. Loads at once, or in ``ticks`` turns of the loop, which ending a load that
    is called off takes too; those of ``held`` keys when they are let go."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self.sizes = sizes
        self.retentions: dict[str, Retention] = {}
        self.unread: dict[str, asyncio.Event] = {}
        self.studies: list[str] = []
        self.failures: dict[str, EngineError] = {}
        self.go: dict[str, asyncio.Event] = {}
        self.loads: list[str] = []
        self.options: list[LoadOptions] = []
        self.threads: list[int | None] = []
        self.engines: list[StubEngine] = []
        self.ticks = 0

    async def take_time(self, key: str) -> None:
        try:
            await turns(self.ticks)
            if key in self.go:
                await self.go[key].wait()
        except asyncio.CancelledError:
            await turns(self.ticks)
            raise

    def retention(self, name: str) -> Retention:
        if name not in self.sizes:
            raise ModelFileNotFound(f"there is no model {name}")
        return self.retentions.get(name, Retention())

    def estimate(self, name: str, options: LoadOptions, *, beside: bool = False) -> Footprint:
        return Footprint(ram=self.sizes[name])

    def can_estimate(self, name: str, options: LoadOptions) -> bool:
        return name not in self.unread

    async def study(self, name: str, options: LoadOptions) -> None:
        self.studies.append(name)
        await self.unread[name].wait()

    def measured(self, name: str, engine: object, *, beside: bool = False) -> Footprint | None:
        return None

    def note_load(self, name: str, options: LoadOptions) -> None:
        pass

    async def load(
        self, name: str, options: LoadOptions, report: PhaseProgress, *, threads: int | None = None
    ) -> StubEngine:
        self.loads.append(name)
        self.options.append(options)
        self.threads.append(threads)
        report("loading", 0.5)
        await self.take_time(name)
        if name in self.failures:
            raise self.failures[name]
        engine = StubEngine(name)
        self.engines.append(engine)
        return engine


@dataclass
class Setup:
    """What a `World` has: bytes of memory, and each model's size and deployment."""

    sizes: dict[str, int] = field(default_factory=lambda: {"a": 1, "b": 1})
    deployments: dict[str, Deployment] = field(default_factory=dict)
    ram: int = 100
    max_models: int = 1
    strategy: Strategy = Strategy.ROUND_ROBIN
    grace: float = 30.0
    limits: dict[str, Any] = field(default_factory=dict)


class World:
    """A fleet over the real manager and balancer; engines, processes and time are stood in for."""

    def __init__(self, setup: Setup) -> None:
        self.clock = Clock()
        self.setup = setup
        self.loader = StubLoader(setup.sizes)
        self.instances = Instances()
        self.started: list[str] = []
        self._alarm: asyncio.Event | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._mishaps: list[dict[str, Any]] = []  # what tasks failed with that nobody waits for
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self._mishaps.append(context))
        loader = InstanceLoader(self.loader, self.instances, self._start_process)  # type: ignore[arg-type]
        self.manager = ModelManager(
            loader,
            ModelLimits(max_models=setup.max_models, budget=Footprint(ram=setup.ram)),
            clock=self.clock,
            sleep=self._sleep,
        )
        self.fleet = Fleet(
            self.manager,
            self.instances,
            make=self._make,
            deployment=self._deployment,
            strategy=setup.strategy,
            grace=setup.grace,
        )
        self.balancer = Balancer(QueueLimits(**setup.limits), self.fleet, self.clock)
        self.fleet.on_change = self.balancer.changed
        self.manager.on_change = self.fleet.states_changed
        self.manager.start()

    # -- what is there -----------------------------------------------------------------------------

    def backends(self, model: str = "a") -> list[ManagedBackend]:
        return [b for b in self.fleet.backends(model) if isinstance(b, ManagedBackend)]

    def states(self, model: str = "a") -> list[str]:
        return [str(backend.state) for backend in self.backends(model)]

    def engine(self, backend: Backend) -> StubEngine:
        assert isinstance(backend, ManagedBackend)
        engine = self.manager.resident(backend.instance.key)
        assert isinstance(engine, StubEngine)
        return engine

    # -- what happens ------------------------------------------------------------------------------

    async def ready(self, model: str = "a") -> None:
        """A call comes and goes; the model stays, and its replicas come."""
        (await self.balancer.acquire(call(model))).release()
        await turns()

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def later(self, seconds: float) -> None:
        """Time passes, and the manager's watch notices."""
        await turns()
        assert self._alarm is not None, "the watch does not sleep: it has died"
        self.pass_time(seconds)
        await turns()

    def pass_time(self, seconds: float) -> None:
        """As `later`, at once: the watch notices when it sleeps next."""
        self.clock.now += seconds
        if self._alarm is not None:
            self._alarm.set()

    async def stop(self) -> None:
        """Stop, and check that nothing is left behind."""
        for event in self.loader.go.values():
            event.set()
        await self.fleet.stop()
        await self.manager.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await turns()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert self._mishaps == []
        assert [engine.info.model for engine in self.loader.engines if not engine.closed] == []
        assert (self.balancer.queue_depth, self.balancer.running) == (0, 0)

    # -- inside ------------------------------------------------------------------------------------

    def _make(self, instance: Instance, weight: float) -> ManagedBackend:
        backend = LocalBackend(self.manager, instance, weight)
        backend.kind = instance.kind.value
        return backend

    def _deployment(self, model: str) -> Deployment | None:
        if model not in self.setup.sizes:
            raise ModelFileNotFound(f"there is no model {model}")
        return self.setup.deployments.get(model, Deployment())

    async def _start_process(
        self, instance: Instance, options: LoadOptions, report: PhaseProgress
    ) -> StubEngine:
        assert instance.kind is InstanceKind.PROCESS
        self.started.append(instance.id)
        await self.loader.take_time(instance.key)
        if instance.model in self.loader.failures:
            raise ModelLoadError("the child ended at once")
        engine = StubEngine(instance.model)
        self.loader.engines.append(engine)
        return engine

    async def _sleep(self, seconds: float) -> None:
        self._alarm = asyncio.Event()
        try:
            await self._alarm.wait()
        finally:
            self._alarm = None
