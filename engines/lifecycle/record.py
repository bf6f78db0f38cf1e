"""The record of one model. Only the manager and its parts in this package change it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from engines.base import Resident
from engines.errors import EngineError, ModelLoadError
from engines.lifecycle.errors import InsufficientMemory, ModelConflict, NeverFits
from engines.lifecycle.planner import Occupant
from engines.lifecycle.states import DEFAULT_OPTIONS, LoadOptions, ModelState, ModelStatus
from engines.machine.footprint import Footprint
from engines.models.catalog import FOREVER

# Seconds that a client is told to wait for models in use to end.
RETRY_IN_USE = 5.0
FIRST_COOL_DOWN = 2.0
LONGEST_COOL_DOWN = 300.0
RESTART_PAUSE = 1.0
LONGEST_RESTART_PAUSE = 60.0
# A crash after so many seconds has nothing to do with the one before.
STABLE_AFTER = 10.0


@dataclass(eq=False, slots=True)
class Record:
    """A model's state, options, uses and history. Times are the manager's clock's.

    ``intended``: to be loaded even if no request waits for it. ``asked_keep_alive``: what a request asked
    for since the model was loaded; it goes before ``keep_alive``. ``holds`` are the calls on it,
    ``replica_holds`` those on its replicas.
    """

    name: str
    state: ModelState = ModelState.STOPPED
    detail: str = ""
    options: LoadOptions = DEFAULT_OPTIONS
    pinned: bool = False
    keep_alive: float = FOREVER
    asked_keep_alive: float | None = None
    intended: bool = False
    modest: bool = False
    yielding: bool = False
    refusal: str | None = None
    replica_of: str | None = None
    holds: int = 0
    replica_holds: int = 0
    last_used: float = 0.0
    expires_at: float | None = None
    engine: Resident | None = None
    task: asyncio.Task[None] | None = None
    called_off: bool = False  # the load that is under way
    phase: str = ""
    progress: float = 0.0
    load_started: float = 0.0
    memory: Footprint | None = None
    memory_of: LoadOptions | None = None  # the options that ``memory`` belongs to
    failure: EngineError | None = None  # of the last load, if it failed
    failures: int = 0
    retry_at: float = 0.0
    loads: int = 0
    restarts: int = 0
    restarting: bool = False
    crashes: int = 0  # one soon after the other
    ready_at: float = 0.0
    load_seconds: float | None = None
    unload_seconds: float | None = None
    watchers: list[asyncio.Future[None]] = field(default_factory=list)

    @property
    def occupies(self) -> bool:
        """Whether it holds memory, or is about to."""
        return self.state is not ModelState.SLEEPING and (self.engine is not None or self.task is not None)

    @property
    def footprint(self) -> Footprint:
        """Memory that it holds now."""
        if self.state is ModelState.SLEEPING and self.engine is not None:
            return Footprint(ram=self.engine.info.memory_asleep)
        return self.memory or Footprint()

    def can_load(self, now: float) -> bool:
        """Whether a load may begin: nothing is under way, and no cool-down runs."""
        if self.task is not None:
            return False
        if self.state is ModelState.FAILED:
            return now >= self.retry_at
        return self.state in (ModelState.STOPPED, ModelState.SLEEPING)

    def obstacle(self, now: float) -> EngineError | None:
        """Why a request that waits for the model now waits in vain, if it does."""
        if self.refusal is not None:
            return NeverFits(f"model {self.name} cannot be loaded: {self.refusal}")
        cooling = self.state is ModelState.FAILED and not self.restarting
        if not cooling or self.can_load(now):
            return None
        return self.failure or ModelLoadError(self.detail)

    def wait_is_over(self, patient: bool) -> EngineError | None:
        """Why an operator's wait for the load is over, if it is; ``patient``: not for want of room alone."""
        if self.refusal is not None:
            return NeverFits(f"model {self.name} cannot be loaded: {self.refusal}")
        if self.state is ModelState.FAILED and not self.restarting:
            return self.failure or ModelLoadError(self.detail)
        if not self.intended and self.state is not ModelState.LOADING:
            return ModelConflict(f"the load of {self.name} was called off: the model was unloaded meanwhile")
        if not patient:
            return InsufficientMemory(
                f"no room for {self.name}: the models that are loaded are in use", RETRY_IN_USE
            )
        return None

    def occupant(self) -> Occupant:
        asleep = self.state is ModelState.SLEEPING
        there = asleep or self.state is ModelState.READY
        return Occupant(
            name=self.name,
            memory=self.footprint,
            evictable=there and not self.pinned,
            busy=self.in_use,
            leaving=not there and self.state is not ModelState.LOADING,
            asleep=asleep,
            yielding=self.yielding,
            pinned=self.pinned,
            replica=self.replica_of is not None,
            last_used=self.last_used,
        )

    @property
    def in_use(self) -> bool:
        return self.holds + self.replica_holds > 0

    @property
    def lasting(self) -> float:
        """The keep-alive that holds now."""
        return self.keep_alive if self.asked_keep_alive is None else self.asked_keep_alive

    def note_idle(self, now: float) -> None:
        """Its use ended, or was put off, at ``now``: from here on its keep-alive runs."""
        keep_alive = self.lasting
        self.expires_at = None if keep_alive < 0 else now + keep_alive

    def is_expired(self, now: float) -> bool:
        there = self.state in (ModelState.READY, ModelState.SLEEPING)
        idle = there and not self.in_use and not self.pinned
        return idle and self.expires_at is not None and self.expires_at <= now

    @property
    def is_retried(self) -> bool:
        """Whether its next load is another try, after a failure or a crash."""
        return self.failures > 0 or self.restarting

    def cool_down(self) -> float:
        """Seconds until the next try, after as many failures as there were in a row."""
        return min(FIRST_COOL_DOWN * 2.0 ** (self.failures - 1), LONGEST_COOL_DOWN)

    def restart_pause(self, now: float) -> float:
        """Seconds until it is started again after a crash: longer each time, unless it lived for a while."""
        if now - self.ready_at >= STABLE_AFTER:
            self.crashes = 0
        pause = RESTART_PAUSE * 2.0**self.crashes
        self.crashes += 1
        return min(pause, LONGEST_RESTART_PAUSE)

    def status(self, now: float, wanted: bool) -> ModelStatus:
        """``wanted``: requests wait for it."""
        engine = self.engine
        ready = self.state is ModelState.READY
        return ModelStatus(
            name=self.name,
            state=self.state,
            detail=self.detail or self.refusal or "",
            phase=self.phase if self.state is ModelState.LOADING else "",
            progress=1.0 if ready else self.progress if self.state is ModelState.LOADING else 0.0,
            eta_seconds=self._eta(now),
            inflight=self.holds + self.replica_holds,
            pinned=self.pinned,
            keep_alive=self.lasting,
            expires_in=max(0.0, self.expires_at - now) if ready and self.expires_at is not None else None,
            retry_after=max(0.0, self.retry_at - now) if self.state is ModelState.FAILED else None,
            waits_for_room=(wanted or self.intended)
            and self.state in (ModelState.STOPPED, ModelState.SLEEPING, ModelState.DRAINING),
            memory=self.footprint,
            is_replica=self.replica_of is not None,
            info=engine.info if engine else None,
            stats=engine.stats() if engine else None,
            loads=self.loads,
            restarts=self.restarts,
            load_seconds=self.load_seconds,
            unload_seconds=self.unload_seconds,
        )

    def _eta(self, now: float) -> float | None:
        if self.state is not ModelState.LOADING:
            return None
        if self.progress > 0.0:
            return round((now - self.load_started) * (1.0 - self.progress) / self.progress, 1)
        if self.load_seconds is not None:  # as long as the last time
            return round(max(0.0, self.load_seconds - (now - self.load_started)), 1)
        return None
