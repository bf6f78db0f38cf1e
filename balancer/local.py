"""A backend that is an engine in this process."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from balancer.backend import BackendState, BackendStatus, Call, Reply
from balancer.errors import NoBackend
from engines.base import Engine
from engines.errors import EngineError, ModelLoadError

logger = logging.getLogger("balancer.local")

LoadEngine = Callable[[Callable[[float], None]], Awaitable[Engine]]

FIRST_RETRY = 1.0
LONGEST_RETRY = 300.0


class LocalBackend:
    """Loads an engine, watches it, and loads it again when it stops making progress.

    ``load`` makes the engine and is given a callback for progress (0..1, from any thread). A failed
    load is tried again after a pause that doubles; a model that cannot be loaded at all stays FAILED.
    """

    def __init__(
        self,
        name: str,
        model: str,
        load: LoadEngine,
        *,
        health_interval: float = 30.0,
        on_change: Callable[[], None] = lambda: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._name = name
        self._model = model
        self._load = load
        # Looking costs nothing for an engine in this process, so look often.
        self._interval = min(health_interval, 1.0)
        self._on_change = on_change
        self._sleep = sleep
        self._state = BackendState.STOPPED
        self._detail = ""
        self._progress = 0.0
        self._inflight = 0
        self._restarts = 0
        self._load_started = 0.0
        self._engine: Engine | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def model(self) -> str:
        return self._model

    @property
    def state(self) -> BackendState:
        return self._state

    @property
    def available(self) -> bool:
        return self._state is BackendState.READY

    @property
    def inflight(self) -> int:
        return self._inflight

    @property
    def engine(self) -> Engine | None:
        return self._engine

    def status(self) -> BackendStatus:
        engine = self._engine
        return BackendStatus(
            name=self._name,
            kind="local",
            model=self._model,
            state=self._state,
            detail=self._detail,
            progress=self._progress,
            inflight=self._inflight,
            info=engine.info if engine else None,
            stats=engine.stats() if engine else None,
            extra={"restarts": self._restarts, "eta_seconds": self._eta()},
        )

    def begin(self) -> None:
        self._inflight += 1

    def end(self) -> None:
        self._inflight -= 1

    async def run(self, call: Call) -> Reply:
        engine = self._engine
        if engine is None or not self.available:
            raise NoBackend(f"model {self._model} is {self._state}: {self._detail}", retry_after=FIRST_RETRY)
        return await call.run(engine)

    def start(self) -> None:
        """Begin to load; returns at once. `state` says how it goes."""
        if self._task is None:
            self._change(BackendState.STARTING)
            self._task = asyncio.get_running_loop().create_task(self._live())

    async def stop(self) -> None:
        """Unload, failing what still runs. Idempotent."""
        self._change(BackendState.DRAINING)
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._close_engine()
        self._change(BackendState.STOPPED)

    async def _live(self) -> None:
        """Load, watch until unhealthy, close, and over again."""
        pause = FIRST_RETRY
        while True:
            try:
                await self._open_engine()
            except ModelLoadError as error:
                self._change(BackendState.FAILED, error.message)
                logger.error("model %s cannot be loaded: %s", self._model, error.message)
            except Exception as error:
                self._change(BackendState.FAILED, repr(error))
                logger.exception("loading model %s failed", self._model)
            else:
                pause = FIRST_RETRY
                reason = await self._watch()
                logger.error("model %s is unhealthy (%s): it is loaded again", self._model, reason)
                self._restarts += 1
                self._change(BackendState.UNHEALTHY, reason)
                await self._close_engine()
            await self._sleep(pause)
            pause = min(2 * pause, LONGEST_RETRY)
            self._change(BackendState.STARTING, self._detail)

    async def _open_engine(self) -> None:
        self._progress = 0.0
        self._load_started = time.monotonic()
        self._engine = await self._load(self._note_progress)
        self._progress = 1.0
        logger.info(
            "model %s is ready after %.1f s",
            self._model,
            time.monotonic() - self._load_started,
            extra={"engine": dict(self._engine.info.details)},
        )
        self._change(BackendState.READY)

    async def _watch(self) -> str:
        """Returns when the engine is unhealthy, with the reason."""
        assert self._engine is not None
        while True:
            await self._sleep(self._interval)
            health = await self._engine.health()
            if not health.ok:
                return health.detail

    async def _close_engine(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            try:
                await engine.close()
            except EngineError:
                logger.exception("closing the engine of %s failed", self._model)

    def _note_progress(self, fraction: float) -> None:
        self._progress = fraction  # a float store: safe from the loading thread

    def _eta(self) -> float | None:
        if self._state is not BackendState.STARTING or self._progress <= 0.0:
            return None
        elapsed = time.monotonic() - self._load_started
        return round(elapsed * (1.0 - self._progress) / self._progress, 1)

    def _change(self, state: BackendState, detail: str = "") -> None:
        self._state = state
        self._detail = detail
        self._on_change()
