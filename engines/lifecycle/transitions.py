"""State transitions of models, and the tasks behind them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Protocol

from engines.base import Resident
from engines.errors import EngineError, ModelLoadError
from engines.lifecycle.events import EventHub
from engines.lifecycle.record import Record
from engines.lifecycle.states import LoadOptions, ModelEvent, ModelState, Retention
from engines.machine.footprint import Footprint
from engines.machine.malloc import give_memory_back
from engines.progress import PhaseProgress

logger = logging.getLogger("engines.lifecycle")


class Loader(Protocol):
    """The manager's source of retentions, estimates and loads: a `ModelLoader`, or a stand-in."""

    def retention(self, name: str) -> Retention:
        """Raises `ModelFileNotFound` for a model that does not exist."""
        ...

    def estimate(self, name: str, options: LoadOptions) -> Footprint:
        """Memory that the model will take. Quick once it can be told. Raises `ModelLoadError` if it cannot be
        loaded at all."""
        ...

    def can_estimate(self, name: str, options: LoadOptions) -> bool:
        """Whether `estimate` need not read files, which takes time. Quick."""
        ...

    async def study(self, name: str, options: LoadOptions) -> None:
        """Read what `estimate` needs. What is wrong with it, `estimate` tells."""
        ...

    async def load(self, name: str, options: LoadOptions, report: PhaseProgress) -> Resident:
        """Load the model; ``report`` gets the phases "converting" and "loading".

        Raises `ModelLoadError`; cancelling leaves nothing behind.
        """
        ...

    def measured(self, name: str, engine: Resident) -> Footprint | None:
        """Memory that ``engine``, loaded for ``name``, took; None if it does not know."""
        ...


class Lifecycle:
    """Changes of a model's state, and the tasks behind them, one at a time: load, wake, sleep, close.

    ``on_end`` is called when such a task ended.
    """

    def __init__(self, loader: Loader, clock: Callable[[], float], on_end: Callable[[], None]) -> None:
        self.events = EventHub()
        self.counts: Counter[str] = Counter()
        self._loader = loader
        self._clock = clock
        self._on_end = on_end

    def set(self, record: Record, state: ModelState, detail: str = "") -> None:
        """The only place where a state changes."""
        previous, record.state, record.detail = record.state, state, detail
        record.yielding = False
        if state is not previous:
            self.events.publish(ModelEvent(record.name, previous, state, time.time(), detail))
        self.notify(record)

    def notify(self, record: Record) -> None:
        """Wake all that wait in `next_change`."""
        watchers, record.watchers = record.watchers, []
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(None)

    async def next_change(self, record: Record, timeout: float | None = None) -> None:
        """Wait until something about ``record`` changed, at most ``timeout`` seconds."""
        watcher: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        record.watchers.append(watcher)
        await asyncio.wait((watcher,), timeout=timeout)

    def load(self, record: Record) -> None:
        """Begin to load the model, or to wake it."""
        self.set(record, ModelState.LOADING)
        record.called_off = False
        self._begin(record, self._load(record))

    def cancel_load(self, record: Record) -> None:
        """Cancel the model's load, once: a second cancellation would cut the cleaning up short."""
        task = record.task
        if task is not None and not record.called_off:
            record.called_off = True
            # Later, because a task that is cancelled before its first step cannot clean up at all.
            asyncio.get_running_loop().call_soon(task.cancel)

    def evict(self, record: Record, *, may_sleep: bool) -> None:
        """Begin to put an idle model to sleep, or to free it where it cannot sleep."""
        self.set(record, ModelState.DRAINING)
        self._begin(record, self._rest(record, may_sleep))

    def drain(self, record: Record, *, force: bool = False) -> None:
        """Give the model no more requests; begin to close it once it is idle, or (``force``) at once."""
        if record.state is not ModelState.DRAINING:
            self.set(record, ModelState.DRAINING)
        if record.task is None and (force or not record.holds):
            self._begin(record, self._close(record))

    def crash(self, record: Record, reason: str) -> None:
        """Close an engine that makes no progress; its model is loaded again soon."""
        logger.error("model %s is unhealthy (%s): it is loaded again", record.name, reason)
        record.restarts += 1
        record.restarting = record.intended = True
        now = self._clock()
        record.retry_at = now + record.restart_pause(now)
        self.counts["restarts"] += 1
        self.set(record, ModelState.FAILED, reason)
        self._begin(record, self._close(record, ModelState.FAILED, reason))

    def fail(self, record: Record, error: EngineError) -> None:
        """Note that the load failed; its cool-down begins."""
        record.failure = error
        record.failures += 1
        record.retry_at = self._clock() + record.cool_down()
        record.restarting = False
        record.memory = None
        self.counts["load_failures"] += 1
        logger.error("model %s cannot be loaded: %s", record.name, error.message)
        self.set(record, ModelState.FAILED, error.message)

    def forgive(self, record: Record) -> None:
        """Forget that loading failed: the next load need not wait for the cool-down."""
        if record.state is ModelState.FAILED and not record.restarting:
            record.failures, record.retry_at = 0, 0.0
            self.set(record, ModelState.STOPPED)

    def _begin(self, record: Record, work: Coroutine[None, None, None]) -> None:
        async def run() -> None:
            try:
                await work
            finally:
                record.task = None
                self.notify(record)
                self._on_end()

        record.task = asyncio.get_running_loop().create_task(run())

    async def _load(self, record: Record) -> None:
        record.load_started = self._clock()
        record.progress, record.phase = 0.0, "loading"
        try:
            engine = await self._open(record)
        except asyncio.CancelledError:
            await self._free(record)
            self.set(record, ModelState.STOPPED, "the load was called off")
        except EngineError as error:
            await self._free(record)
            self.fail(record, error)
        except Exception as error:
            logger.exception("loading model %s failed", record.name)
            await self._free(record)
            self.fail(record, ModelLoadError(repr(error)))
        else:
            self._loaded(record, engine)

    async def _open(self, record: Record) -> Resident:
        if record.engine is not None:
            await record.engine.wake()
            return record.engine

        def report(phase: str, fraction: float) -> None:
            record.phase, record.progress = phase, fraction  # two stores: safe from any thread

        return await self._loader.load(record.name, record.options, report)

    def _loaded(self, record: Record, engine: Resident) -> None:
        now = self._clock()
        record.engine = engine
        record.load_seconds = now - record.load_started
        record.memory = self._loader.measured(record.name, engine) or record.memory
        record.failures = 0
        record.restarting = record.intended = False
        record.loads += 1
        record.last_used = record.ready_at = now
        record.asked_keep_alive = record.expires_at = None
        self.counts["loads"] += 1
        details = {"engine": dict(engine.info.details)}
        logger.info("model %s is ready after %.1f s", record.name, record.load_seconds, extra=details)
        self.set(record, ModelState.READY)
        if record.keep_alive > 0:  # with 0 it stays until its first use ends
            record.note_idle(now)

    async def _rest(self, record: Record, may_sleep: bool) -> None:
        engine = record.engine
        if engine is None or not may_sleep or "sleep" not in engine.info.capabilities:
            await self._close(record)
            return
        try:
            await engine.sleep()
        except Exception:
            logger.exception("model %s could not be put to sleep: it is unloaded", record.name)
            await self._close(record)
        else:
            self.set(record, ModelState.SLEEPING)

    async def _close(self, record: Record, then: ModelState = ModelState.STOPPED, detail: str = "") -> None:
        started = self._clock()
        await self._free(record)
        record.unload_seconds = self._clock() - started
        logger.info("model %s was unloaded in %.1f s", record.name, record.unload_seconds)
        self.set(record, then, detail)

    async def _free(self, record: Record) -> None:
        if record.engine is None:
            return
        try:
            await record.engine.close()
        except Exception:  # it is let go all the same: nobody could use it any more
            logger.exception("closing the engine of %s failed", record.name)
        record.engine = None
        give_memory_back()
