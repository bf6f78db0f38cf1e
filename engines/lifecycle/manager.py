"""Keeps the models that requests want loaded, within the limits of places and memory."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from engines.base import Resident
from engines.errors import EngineError, ModelLoadError
from engines.lifecycle.errors import InsufficientMemory, ModelConflict
from engines.lifecycle.events import EventHub
from engines.lifecycle.planner import AdmissionPlan, Want, plan
from engines.lifecycle.record import Record
from engines.lifecycle.states import DEFAULT_OPTIONS, LoadOptions, ModelState, ModelStatus
from engines.lifecycle.transitions import Lifecycle, Loader
from engines.machine.footprint import Footprint

logger = logging.getLogger("engines.lifecycle")

# What is said to who waited in vain for models in use to end, in seconds.
RETRY = 5.0


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """``max_models`` at once within ``budget``; health is looked at every ``interval`` seconds."""

    max_models: int
    budget: Footprint
    interval: float = 1.0


class ModelManager:
    """Decides which models are loaded and unloaded, and keeps count of who uses them.

    Everything runs on the event loop's thread. ``on_change`` is called whenever a waiting request might
    be served or refused now.
    """

    def __init__(
        self,
        loader: Loader,
        limits: ModelLimits,
        *,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.limits = limits
        self.on_change = on_change
        self._loader = loader
        self._clock = clock
        self._sleep = sleep
        self._lifecycle = Lifecycle(loader, clock, self._changed)
        self._records: dict[str, Record] = {}
        self._demanded: tuple[str, ...] = ()
        self._wanted: list[Want] = []
        self._planning = self._plan_again = self._stopped = False
        self._watch: asyncio.Task[None] | None = None
        self._checks: set[asyncio.Task[None]] = set()

    # -- what is there -----------------------------------------------------------------------------

    @property
    def events(self) -> EventHub:
        return self._lifecycle.events

    @property
    def counts(self) -> Counter[str]:
        """Since the start: loads, load_failures, evictions, expirations, restarts."""
        return self._lifecycle.counts

    @property
    def used(self) -> Footprint:
        """Memory of all models that are loaded or asleep, or on their way in or out."""
        return sum((record.footprint for record in self._holders()), Footprint())

    def state(self, name: str) -> ModelState:
        """Cheap: asked for every backend at every pick."""
        record = self._records.get(name)
        return ModelState.STOPPED if record is None else record.state

    def loads(self, name: str) -> int:
        """How many times the model was loaded."""
        record = self._records.get(name)
        return 0 if record is None else record.loads

    def status(self, name: str) -> ModelStatus:
        """Raises `ModelFileNotFound` for a model that does not exist."""
        record = self._records.get(name)
        return self._status(record or self._new_record(name))

    def statuses(self) -> list[ModelStatus]:
        """Of every model, and replica, that was ever wanted."""
        return [self._status(record) for record in self._records.values()]

    def can_serve(self, name: str) -> bool:
        """Whether a new request may be sent to the model now."""
        record = self._records.get(name)
        if record is None or record.state is not ModelState.READY or record.yielding:
            return False
        original = self._original(record)
        return original is None or not original.yielding

    def refusal(self, name: str) -> EngineError | None:
        """Why waiting for the model is of no use now, if it is."""
        record = self._records.get(name)
        if record is None:
            return None
        if record.refusal is not None:
            return InsufficientMemory(f"model {name} cannot be loaded: {record.refusal}")
        cooling = record.state is ModelState.FAILED and not record.restarting
        if cooling and not record.can_load(self._clock()):
            return ModelLoadError(record.detail)
        return None

    def resident(self, name: str) -> Resident | None:
        """What was loaded of a model that is ready."""
        record = self._records.get(name)
        return record.engine if record is not None and record.state is ModelState.READY else None

    def is_wanted(self, name: str) -> bool:
        """Whether the model is to be loaded even if no request waits for it."""
        record = self._records.get(name)
        return record is not None and record.intended

    def options(self, name: str) -> LoadOptions:
        """How the model is loaded, or was to be."""
        record = self._records.get(name)
        return DEFAULT_OPTIONS if record is None else record.options

    # -- using models ------------------------------------------------------------------------------

    def hold(self, name: str, keep_alive: float | None = None) -> None:
        """A request begins; the model stays until `release`, and ``keep_alive`` seconds from then.

        What a request asks for holds for later ones that ask for nothing, until the model is unloaded.
        """
        record = self._record(name)
        record.holds += 1
        original = self._original(record)
        if original is not None:
            original.replica_holds += 1
            record = original
        record.expires_at = None
        if keep_alive is not None:
            record.asked_keep_alive = keep_alive

    def release(self, name: str) -> None:
        record = self._records[name]
        record.holds -= 1
        record.last_used = self._clock()
        original = self._original(record)
        if original is not None:
            original.replica_holds -= 1
            original.last_used = record.last_used
        if not record.holds and record.state is ModelState.DRAINING:
            self._lifecycle.drain(record)
        model = original or record
        if model.in_use or model.state is ModelState.DRAINING:
            return
        model.note_idle(record.last_used)
        self._changed()
        # Later, so that who waits for it, or for a place only, goes before its expiry.
        asyncio.get_running_loop().call_soon(self._expire, model)

    def demand(self, names: Iterable[str]) -> None:
        """Requests wait for these models, in the order of the first request for each."""
        demanded = tuple(names)
        if demanded or self._demanded:
            self._demanded = demanded
            self._plan()

    # -- administration ----------------------------------------------------------------------------

    async def load(
        self,
        name: str,
        options: LoadOptions = DEFAULT_OPTIONS,
        *,
        keep_alive: float | None = None,
        pin: bool | None = None,
        patience: float | None = None,
        modest: bool = False,
    ) -> ModelStatus:
        """Load the model as ``options`` say and return when it is ready.

        Joins a load that is under way. ``patience`` bounds the wait for room, in seconds; ``modest``: only if
        no other has to go for it. Raises `ModelConflict` if it is loaded otherwise and in use,
        `InsufficientMemory`, or `ModelLoadError`.
        """
        self.want(name, options, keep_alive=keep_alive, pin=pin, modest=modest)
        record = self._record(name)
        give_up = None if patience is None else self._clock() + patience
        while record.state is not ModelState.READY:
            loading = record.state is ModelState.LOADING
            reason = self._hopeless(record, loading or give_up is None or self._clock() < give_up)
            if reason is not None:
                self._give_up(record)
                raise reason
            left = None if give_up is None or loading else give_up - self._clock()
            await self._lifecycle.next_change(record, left)
        return self._status(record)

    def want(
        self,
        name: str,
        options: LoadOptions = DEFAULT_OPTIONS,
        *,
        keep_alive: float | None = None,
        pin: bool | None = None,
        modest: bool = False,
    ) -> None:
        """Begin what `load` does, and return at once. ``modest``: only if no other has to go for it."""
        record = self._record(name)
        if options != record.options and (record.engine is not None or record.task is not None):
            if record.state not in (ModelState.READY, ModelState.SLEEPING) or record.holds:
                raise ModelConflict(
                    f"model {name} is {record.state} with other settings and in use: unload it first"
                )
            self._lifecycle.drain(record)
        record.options = options
        if keep_alive is not None:
            record.keep_alive, record.asked_keep_alive = keep_alive, None
            if not record.holds:
                record.note_idle(self._clock())
        if pin is not None:
            record.pinned = pin
        record.intended = record.state is not ModelState.READY
        record.modest = modest
        self._forgive(record)  # somebody mended it, it seems
        self._plan()

    def renew(self, name: str) -> None:
        """The model's settings or its file changed: how it is kept counts at once, the rest when it is next
        loaded, which may be tried again now if it failed."""
        record = self._records.get(name)
        if record is None:
            return
        retention = self._loader.retention(name)
        record.pinned, record.keep_alive = retention.pin, retention.keep_alive
        if not record.occupies:
            record.memory = None
        self._forgive(record)
        self._plan()

    def forget(self, name: str) -> None:
        """The model does not exist any more. One that is still there is remembered as long as it is."""
        record = self._records.get(name)
        if record is not None and record.engine is None and record.task is None and not record.holds:
            del self._records[name]

    async def unload(self, name: str, *, force: bool = False, again: bool = False) -> ModelStatus:
        """Let running requests end (``force``: fail them), free the model, and return when it is freed.

        ``again``: it is to be loaded anew, so its options stay, and a pin is no reason against it. Else
        raises `ModelConflict` for a pinned model unless forced. A later request loads it again.
        """
        record = self._record(name)
        if record.pinned and record.occupies and not (force or again):
            raise ModelConflict(f"model {name} is pinned: load it with pin=false first, or use force=true")
        record.intended = record.restarting = False
        if not again:
            record.pinned, record.options = False, DEFAULT_OPTIONS
        engine, task = record.engine, record.task
        if record.state is ModelState.LOADING:
            self._lifecycle.cancel_load(record)
        elif engine is not None and task is None:
            self._lifecycle.drain(record, force=force)
        self._lifecycle.notify(record)
        self._changed()  # its replicas go with it, and nobody needs to make way for it any more
        # Who waits for the model may have it loaded again at once: only this engine, this load counts.
        while (engine is not None and record.engine is engine) or (task is not None and record.task is task):
            if record.task is None:
                self._lifecycle.drain(record, force=force)
            await self._lifecycle.next_change(record)
        self._forgive(record)
        return self._status(record)

    def _forgive(self, record: Record) -> None:
        """A failure is of the past; a next load need not wait."""
        if record.state is ModelState.FAILED and not record.restarting:
            record.failures, record.retry_at = 0, 0.0
            self._lifecycle.set(record, ModelState.STOPPED)

    def _give_up(self, record: Record) -> None:
        """Nobody needs to make way for it any more; a request may still ask for it, as it is configured."""
        record.intended = False
        if record.engine is None:
            record.options = DEFAULT_OPTIONS
        # Later, so that all who joined the load are told the same reason.
        asyncio.get_running_loop().call_soon(self._plan)

    def _hopeless(self, record: Record, patient: bool) -> EngineError | None:
        """Why the wait for ``record`` to be ready is over, if it is."""
        name = record.name
        if record.refusal is not None:
            return InsufficientMemory(f"model {name} cannot be loaded: {record.refusal}")
        if record.state is ModelState.FAILED and not record.restarting:
            return record.failure or ModelLoadError(record.detail)
        if not record.intended and record.state is not ModelState.LOADING:
            return ModelConflict(f"the load of {name} was called off: the model was unloaded meanwhile")
        if not patient:
            return InsufficientMemory(f"no room for {name}: the models that are loaded are in use", RETRY)
        return None

    # -- life --------------------------------------------------------------------------------------

    def start(self) -> None:
        self._watch = asyncio.get_running_loop().create_task(self._keep_watch())

    async def stop(self) -> None:
        """Free everything, failing what still runs; nothing is loaded any more, whoever still waits."""
        self._stopped = True
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        for check in self._checks:
            check.cancel()
        await asyncio.gather(*(self.unload(name, force=True) for name in list(self._records)))

    def tick(self) -> None:
        """Unload what was not used for long enough, and try again what may be tried again."""
        for record in list(self._records.values()):
            self._expire(record)
        self._plan()

    def look(self, name: str) -> None:
        """Something happened to the model: check its health now."""
        record = self._records.get(name)
        if record is not None:
            check = asyncio.get_running_loop().create_task(self._check(record))
            self._checks.add(check)
            check.add_done_callback(self._checks.discard)

    async def _keep_watch(self) -> None:
        while True:
            await self._sleep(self.limits.interval)
            try:
                self.tick()
                for record in list(self._records.values()):
                    await self._check(record)
            except Exception:
                logger.exception("looking after the models failed; it goes on")

    async def _check(self, record: Record) -> None:
        engine = record.engine
        if engine is None or record.state is not ModelState.READY:
            return
        health = await engine.health()
        if not health.ok and record.engine is engine and record.state is ModelState.READY:
            self._lifecycle.crash(record, health.detail)

    # -- planning ----------------------------------------------------------------------------------

    def _changed(self) -> None:
        """Requests that wait are served first; what then still waits decides who is loaded next."""
        self.on_change()
        self._plan()

    def _plan(self) -> None:
        """Make a plan and carry it out; what that changes may lead to another."""
        self._plan_again = True
        if self._planning or self._stopped:
            return
        self._planning = True
        try:
            while self._plan_again:
                self._plan_again = False
                self._apply(self._next_plan())
        finally:
            self._planning = False

    def _next_plan(self) -> AdmissionPlan:
        self._wanted = wants = self._wants()
        # What a sleeper keeps is part of what it takes when it wakes.
        waking = {want.name for want in wants}
        occupants = [record.occupant() for record in self._holders() if record.name not in waking]
        return plan(occupants, wants, max_models=self.limits.max_models, budget=self.limits.budget)

    def _holders(self) -> list[Record]:
        """Models that hold memory, or are about to."""
        return [r for r in self._records.values() if r.engine is not None or r.task is not None]

    def _may_sleep(self, record: Record) -> bool:
        """Whether what waits for room would fit beside what ``record`` keeps while it sleeps."""
        if record.engine is None or record.replica_of is not None:
            return False
        asleep = Footprint(ram=record.engine.info.memory_asleep)
        room = self.limits.budget - (self.used - record.footprint + asleep)
        return all(want.memory.fits(room) for want in self._wanted)

    def _wants(self) -> list[Want]:
        """What an operator asked for, then what requests wait for; then what is merely to be there, and what
        failed and is tried again.

        Nobody has to go for the last: a model in use is worth more than one that may be.
        """
        intended = [record for record in self._records.values() if record.intended]
        fresh = [record.name for record in intended if not (record.modest or record.is_retried)]
        urgent = dict.fromkeys((*fresh, *self._demanded))
        wants = []
        for name in (*urgent, *(r.name for r in intended if r.name not in urgent)):
            record = self._record(name)
            if record.can_load(self._clock()) and self._estimated(record):
                memory, modest = record.memory or Footprint(), name not in urgent
                wants.append(Want(name, memory, modest=modest, replica=record.replica_of is not None))
        return wants

    def _estimated(self, record: Record) -> bool:
        """Whether it is known what ``record`` will take; a model that cannot be loaded fails here."""
        if record.memory is None or record.memory_of != record.options:
            try:
                record.memory = self._loader.estimate(record.name, record.options)
            except EngineError as error:
                self._lifecycle.fail(record, error)
                self.on_change()
                return False
            record.memory_of = record.options
        return True

    def _apply(self, decided: AdmissionPlan) -> None:
        news = False
        for record in self._records.values():
            yielding, refusal = record.name in decided.yielding, decided.refused.get(record.name)
            news |= (record.yielding and not yielding) or refusal != record.refusal
            if refusal != record.refusal:
                record.refusal = refusal
                self._lifecycle.notify(record)
                if refusal is not None:
                    logger.warning("model %s cannot be loaded: %s", record.name, refusal)
            record.yielding = yielding
        for name in decided.evict:
            record = self._records[name]
            if record.state is ModelState.SLEEPING:
                self._lifecycle.drain(record)
                continue
            self.counts["evictions"] += 1
            self._lifecycle.evict(record, may_sleep=self._may_sleep(record))
        for name in decided.load:
            self._lifecycle.load(self._records[name])
        if news:
            self.on_change()

    def _expire(self, record: Record) -> None:
        if record.is_expired(self._clock()) and record.name not in self._demanded:
            self.counts["expirations"] += 1
            self._lifecycle.drain(record)

    # -- records -----------------------------------------------------------------------------------

    def _record(self, name: str) -> Record:
        record = self._records.get(name)
        if record is None:
            record = self._records[name] = self._new_record(name)
        return record

    def _new_record(self, name: str) -> Record:
        retention = self._loader.retention(name)
        return Record(
            name, pinned=retention.pin, keep_alive=retention.keep_alive, replica_of=retention.replica_of
        )

    def _original(self, record: Record) -> Record | None:
        """The model that ``record`` is a replica of."""
        return None if record.replica_of is None else self._record(record.replica_of)

    def _status(self, record: Record) -> ModelStatus:
        return record.status(self._clock(), wanted=record.name in self._demanded)
