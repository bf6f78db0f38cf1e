"""The model manager: keeps loaded what requests want, within the limits of places and memory."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

from engines.base import Resident
from engines.errors import EngineError
from engines.lifecycle.admission import Admission, ModelLimits
from engines.lifecycle.errors import ModelConflict
from engines.lifecycle.events import EventHub
from engines.lifecycle.holds import Holds
from engines.lifecycle.record import Record
from engines.lifecycle.records import Records
from engines.lifecycle.states import DEFAULT_OPTIONS, LoadOptions, ModelState, ModelStatus
from engines.lifecycle.transitions import Lifecycle, Loader
from engines.lifecycle.watch import Watch
from engines.machine.footprint import Footprint


class ModelManager:
    """The one owner of every model's state: requests hold models, operators load and unload them.

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
        self.on_change = on_change
        self._loader = loader
        self._clock = clock
        self._lifecycle = Lifecycle(loader, clock, self._changed)
        self._records = Records(loader)
        self._holds = Holds(self._records, self._lifecycle, clock)
        self._admission = Admission(
            self._records, self._lifecycle, loader, limits, clock, lambda: self.on_change()
        )
        self._watch = Watch(self._records, self._lifecycle, lambda: self.limits.interval, sleep, self.tick)

    # -- what is there -----------------------------------------------------------------------------

    @property
    def events(self) -> EventHub:
        return self._lifecycle.events

    @property
    def counts(self) -> Counter[str]:
        """Since the start: loads, load_failures, evictions, expirations, restarts."""
        return self._lifecycle.counts

    @property
    def limits(self) -> ModelLimits:
        return self._admission.limits

    @limits.setter
    def limits(self, limits: ModelLimits) -> None:
        self._admission.limits = limits

    @property
    def used(self) -> Footprint:
        """Memory of all models that are loaded or asleep, or on their way in or out."""
        return self._records.used

    def state(self, name: str) -> ModelState:
        """Cheap: asked for every backend at every pick."""
        record = self._records.get(name)
        return ModelState.STOPPED if record is None else record.state

    def was_wanted(self, name: str) -> bool:
        """Whether there is more to say of the model than that it is stopped."""
        return self._records.get(name) is not None

    def loads(self, name: str) -> int:
        """How many times the model was loaded."""
        record = self._records.get(name)
        return 0 if record is None else record.loads

    def status(self, name: str) -> ModelStatus:
        """Raises `ModelFileNotFound` for a model that does not exist."""
        record = self._records.get(name)
        return self._status(record or self._records.blank(name))

    def statuses(self) -> list[ModelStatus]:
        """Of every model, and replica, that was ever wanted."""
        return [self._status(record) for record in self._records]

    def can_serve(self, name: str) -> bool:
        """Whether a new request may be sent to the model now."""
        record = self._records.get(name)
        if record is None or record.state is not ModelState.READY or record.yielding:
            return False
        original = self._records.original(record)
        return original is None or not original.yielding

    def refusal(self, name: str) -> EngineError | None:
        """Why waiting for the model is of no use now, if it is."""
        record = self._records.get(name)
        # Asked for every instance at rest, of every request: most have nothing to say.
        if record is None or not (record.refusal or record.state is ModelState.FAILED):
            return None
        return record.obstacle(self._clock())

    def resident(self, name: str) -> Resident | None:
        """The engine or worker of a model that is ready."""
        record = self._records.get(name)
        return record.engine if record is not None and record.state is ModelState.READY else None

    def is_wanted(self, name: str) -> bool:
        """Whether the model is to be loaded even if no request waits for it."""
        record = self._records.get(name)
        return record is not None and record.intended

    def options(self, name: str) -> LoadOptions:
        """How the model is loaded, or how it was to be loaded last."""
        record = self._records.get(name)
        return DEFAULT_OPTIONS if record is None else record.options

    # -- using models ------------------------------------------------------------------------------

    def hold(self, name: str, keep_alive: float | None = None) -> None:
        """A request begins: the model stays until `release`, and ``keep_alive`` seconds from then.

        That keep-alive counts for later requests that ask for none too, until the model is unloaded.
        """
        self._holds.add(name, keep_alive)

    def release(self, name: str) -> None:
        model = self._holds.remove(name)
        if model is None:
            return
        self._changed()
        # Later, so that requests that wait for the model, or for a place only, go before its expiry.
        asyncio.get_running_loop().call_soon(self._expire, model)

    def demand(self, names: Iterable[str]) -> None:
        """Requests wait for these models, in the order of the first request for each."""
        self._admission.demand(tuple(names))

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
        record = self._records.ensure(name)
        give_up = None if patience is None else self._clock() + patience
        while record.state is not ModelState.READY:
            loading = record.state is ModelState.LOADING
            reason = record.wait_is_over(loading or give_up is None or self._clock() < give_up)
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
        record = self._records.ensure(name)
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
        self._lifecycle.forgive(record)  # whoever asks may have mended it
        self._admission.review()

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
        self._lifecycle.forgive(record)
        self._admission.review()

    def forget(self, name: str) -> None:
        """The model does not exist any more: drop its record, unless it is loaded or in use still."""
        record = self._records.get(name)
        if record is not None and record.engine is None and record.task is None and not record.holds:
            self._records.remove(name)

    async def unload(self, name: str, *, force: bool = False, again: bool = False) -> ModelStatus:
        """Let running requests end (``force``: fail them), free the model, and return when it is freed.

        ``again``: it is to be loaded anew, so its options stay, and a pin is no reason against it. Else
        raises `ModelConflict` for a pinned model unless forced. A later request loads it again.
        """
        record = self._records.ensure(name)
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
        self._lifecycle.forgive(record)
        return self._status(record)

    def _give_up(self, record: Record) -> None:
        """An operator's load is off: no model makes way for this one; a request may load it as configured."""
        record.intended = record.restarting  # after a crash it is loaded again, whoever asked meanwhile
        if record.engine is None:
            record.options = DEFAULT_OPTIONS
        # Later, so that all who joined the load are told the same reason.
        asyncio.get_running_loop().call_soon(self._admission.review)

    # -- life --------------------------------------------------------------------------------------

    def start(self) -> None:
        self._watch.start()

    async def stop(self) -> None:
        """Unload every model, failing what still runs; nothing is loaded from now on."""
        self._admission.close()
        await self._watch.stop()
        await asyncio.gather(*(self.unload(record.name, force=True) for record in self._records))

    def tick(self) -> None:
        """Unload what was not used for long enough, and try again what may be tried again."""
        for record in self._records:
            self._expire(record)
        self._admission.review()

    def look(self, name: str) -> None:
        """Check the model's health now: a request to it failed."""
        record = self._records.get(name)
        if record is not None:
            self._watch.look(record)

    def _changed(self) -> None:
        """Requests that wait are served first; what then still waits decides which model is loaded next."""
        self.on_change()
        self._admission.review()

    def _expire(self, record: Record) -> None:
        if record.is_expired(self._clock()) and record.name not in self._admission.demanded:
            self.counts["expirations"] += 1
            self._lifecycle.drain(record)

    def _status(self, record: Record) -> ModelStatus:
        return record.status(self._clock(), wanted=record.name in self._admission.demanded)
