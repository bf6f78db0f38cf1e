"""Instances of a model that are processes of their own: one that crashes takes no other with it.

An instance is the same server (`app.worker`) with one model, on a port of the loopback address. The
`ModelManager` keeps it as it keeps an engine of this process.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import psutil

from balancer.health.tracker import HealthTracker
from balancer.workers.child import Child
from balancer.workers.logs import LogRelay
from balancer.workers.ports import LOOPBACK, listen
from balancer.workers.probe import ask
from balancer.workers.protocol import STATUS_PATH, WorkerSpec, stats_from
from balancer.workers.usage import Figures, Meter
from engines.base import EngineInfo, EngineStats, Health
from engines.errors import ModelLoadError, UnsupportedFeature
from engines.progress import PhaseProgress

logger = logging.getLogger("balancer.workers.worker")


# By name: this package knows nothing of the application.
COMMAND = (sys.executable, "-m", "app.worker")
# A probe is answered by the child's event loop in milliseconds; one that takes longer than this hangs.
PROBE_SECONDS = 5.0


class Worker:
    """A child process that serves a model, from `start` to `close`.

    What `info`, `stats`, `health` and the figures say was found out by the last probe, every ``interval``
    seconds. ``cpu_percent``: 100 is one core; ``memory_mb``: resident, in MiB; both with what the child
    started itself.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        name: str,
        child: Child,
        info: EngineInfo,
        *,
        interval: float,
        grace: float,
        on_down: Callable[[], None],
    ) -> None:
        self.name = name
        self.port = spec.port
        self.url = f"http://{LOOPBACK}:{spec.port}"
        self.key = spec.key
        self.pid = child.pid
        self.info = info
        self._child = child
        self._interval = interval
        self._grace = grace
        self._on_down = on_down
        self._tracker = HealthTracker()
        self._detail = ""
        self._stats = EngineStats()
        self._metrics: Mapping[str, float] = {}
        self._figures = Figures()
        self._meter = Meter(child.pid)
        self._suspected = asyncio.Event()
        self._probing: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls,
        spec: WorkerSpec,
        name: str,
        *,
        report: PhaseProgress,
        interval: float,
        grace: float,
        on_down: Callable[[], None] = lambda: None,
        taken: Collection[int] = (),
        command: Sequence[str] = COMMAND,
    ) -> Worker:
        """Start the process and return when it can serve; cancelling ends it.

        It listens on the first free port from ``spec.port`` on that is none of ``taken``. Its log lines
        come with ``name`` as their ``instance``. ``grace``: seconds that answers get to end when it is
        closed. ``on_down`` is called once, when the process ended by itself or is found to hang: `health`
        then says why. Raises `ModelLoadError`.
        """
        spec, child = await cls._spawn(spec, name, report, taken, command)
        try:
            info = await child.loaded()
            instance = cls(spec, name, child, info, interval=interval, grace=grace, on_down=on_down)
            await instance._measure()
        except BaseException:
            child.kill()
            await child.ended
            raise
        instance._begin()
        return instance

    @staticmethod
    async def _spawn(
        spec: WorkerSpec, name: str, report: PhaseProgress, taken: Collection[int], command: Sequence[str]
    ) -> tuple[WorkerSpec, Child]:
        try:
            with listen(spec.port, taken) as listener:
                spec = replace(spec, port=listener.getsockname()[1])
                child = await Child.spawn(command, spec, listener, LogRelay({"instance": name}), report)
        except OSError as error:
            raise ModelLoadError(f"no process can be started for {spec.model}: {error}") from error
        logger.info("started a process for %s on port %d", name, spec.port, extra={"pid": child.pid})
        return spec, child

    @property
    def cpu_percent(self) -> float:
        return self._figures.cpu_percent

    @property
    def memory_mb(self) -> float:
        return self._figures.memory / 2**20

    def stats(self) -> EngineStats:
        return self._stats

    def metrics(self) -> Mapping[str, float]:
        """The engine's own figures, if it has any (`HasMetrics`)."""
        return self._metrics

    async def health(self) -> Health:
        """O(1): what is known."""
        if self._child.exited.done():
            return Health(False, self._child.epitaph)
        if not self._tracker.healthy:
            return Health(False, self._detail)
        return Health(True)

    def suspect(self) -> None:
        """A call failed here: probe now, and every second until it is clear whether it is healthy."""
        if not self._suspected.is_set():  # calls that fail together are one piece of evidence
            self._suspected.set()
            self._judge(False, "calls failed")

    async def sleep(self) -> None:
        raise UnsupportedFeature("an instance that is a process cannot sleep")

    async def wake(self) -> None:
        raise UnsupportedFeature("an instance that is a process cannot sleep")

    async def close(self) -> None:
        """End the process, and return when it is gone; one that is unhealthy gets no grace. Idempotent."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self._probing is not None:
            self._probing.cancel()
        if self._tracker.healthy:
            self._child.terminate()
            await asyncio.wait((self._child.exited,), timeout=self._grace)
        self._child.kill()
        await self._child.ended

    # -- probing -------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._child.exited.add_done_callback(self._exited, context=contextvars.Context())
        self._probing = asyncio.get_running_loop().create_task(
            self._keep_probing(), context=contextvars.Context()
        )

    def _exited(self, status: asyncio.Future[int]) -> None:
        if self._closing is None:
            logger.error("%s is gone: %s", self.name, self._child.epitaph, extra={"pid": self.pid})
            self._go_down()

    def _go_down(self) -> None:
        on_down, self._on_down = self._on_down, lambda: None
        on_down()

    async def _keep_probing(self) -> None:
        while not self._child.exited.done():
            await self._probe()
            await self._measure()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._tracker.next_probe(self._interval)):
                    await self._suspected.wait()
            self._suspected.clear()

    async def _probe(self) -> None:
        try:
            async with asyncio.timeout(min(self._interval, PROBE_SECONDS)):
                answer = await ask(self.port, STATUS_PATH, self.key)
            self._stats, self._metrics = stats_from(answer), answer["metrics"]
            self._judge(answer["ok"], answer["detail"])
        except TimeoutError:
            self._judge(False, "it does not answer")
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._judge(False, f"it cannot be asked how it does: {error}")

    def _judge(self, ok: bool, detail: str) -> None:
        if not ok:
            self._detail = detail
        if not self._tracker.observe(ok) and self._closing is None:
            self._go_down()

    async def _measure(self) -> None:
        """Look what the process uses; on a GPU, how much memory that is only its engine knows."""
        try:
            self._figures = await asyncio.to_thread(self._meter.sample)
        except psutil.Error:
            return  # it is gone, or is another user's
        if "cpu" in self.info.devices:
            self.info = replace(self.info, memory=max(self.info.memory, self._figures.memory))
