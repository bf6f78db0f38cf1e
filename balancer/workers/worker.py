"""Worker: a child process that serves one model, so that a crash takes no other with it.

It is the same server (`app.worker`) with one model, on a port of the loopback address. The `ModelManager`
keeps it as it keeps an engine of this process.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from http.client import responses
from urllib.parse import quote

import psutil

from balancer.errors import BackendFailed, BackendTimedOut
from balancer.health.prober import PROBE_SECONDS, Prober, ProbeResult
from balancer.proxy.client import ProxyClient
from balancer.workers.child import Child
from balancer.workers.logs import LogRelay
from balancer.workers.ports import LOOPBACK, listen
from balancer.workers.protocol import STATUS_PATH, WorkerSpec, WorkerStatus, refusal_from
from balancer.workers.usage import ProcessFigures, ProcessMeter
from engines.base import Adapter, EngineInfo, EngineStats, Health
from engines.errors import ModelLoadError, UnsupportedFeature
from engines.progress import PhaseProgress

logger = logging.getLogger("balancer.workers.worker")


# By name: this package knows nothing of the application.
COMMAND = (sys.executable, "-m", "app.worker")


class Worker:
    """A child process that serves a model, from `start` to `close`.

    `info`, `stats`, `health` and the figures are as of the last probe; there is one every ``interval``
    seconds. ``cpu_percent``: 100 is one core; ``memory_mb``: resident, in MiB; both include processes that
    the child started itself.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        name: str,
        child: Child,
        info: EngineInfo,
        *,
        proxy: ProxyClient,
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
        self._proxy = proxy
        self._prober = Prober(self._probe, self._judge, interval=interval)
        self._stats = EngineStats()
        self._metrics: Mapping[str, float] = {}
        self._figures = ProcessFigures()
        self._meter = ProcessMeter(child.pid)
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls,
        spec: WorkerSpec,
        name: str,
        *,
        proxy: ProxyClient,
        report: PhaseProgress,
        interval: float,
        grace: float,
        on_down: Callable[[], None] = lambda: None,
        taken: Collection[int] = (),
        command: Sequence[str] = COMMAND,
    ) -> Worker:
        """Start the process and return when it can serve; cancelling ends it.

        The process listens on the first free port from ``spec.port`` on that is none of ``taken``. Its log
        lines carry ``name`` as their ``instance``. ``proxy`` sends the probes. ``grace``: seconds that
        answers get to end when the worker is closed. ``on_down`` is called once, when the process ended by
        itself or is found to hang: `health` then says why. Raises `ModelLoadError`.
        """
        spec, child = await cls._spawn(spec, name, report, taken, command)
        try:
            info = await child.loaded()
            worker = cls(
                spec, name, child, info, proxy=proxy, interval=interval, grace=grace, on_down=on_down
            )
            await worker._measure()
        except BaseException:
            child.kill()
            await child.ended
            raise
        worker._watch()
        return worker

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
        """The verdict of the probes so far. O(1)."""
        if self._child.exited.done():
            return Health(False, self._child.epitaph)
        if not self._prober.healthy:
            return Health(False, self._prober.detail)
        return Health(True)

    def suspect(self) -> None:
        """A call failed here: probe now, and every second until it is clear whether it is healthy."""
        self._prober.suspect()

    async def sleep(self) -> None:
        raise UnsupportedFeature("an instance that is a process cannot sleep")

    async def wake(self) -> None:
        raise UnsupportedFeature("an instance that is a process cannot sleep")

    async def add_adapter(self, adapter: Adapter) -> None:
        """As `engines.base.Adapts`: the worker's own route does it. Raises `BackendFailed` too."""
        body = {"name": adapter.name, "path": str(adapter.path.resolve()), "scale": adapter.scale}
        await self._manage(b"POST", "", json.dumps(body).encode(), unless=409)

    async def remove_adapter(self, name: str) -> None:
        await self._manage(b"DELETE", "/" + quote(name, safe=""), b"", unless=404)

    async def _manage(self, method: bytes, path: str, body: bytes, *, unless: int) -> None:
        """Have its adapters changed; with the status ``unless`` they were so before."""
        url = f"{self.url}/v1/models/{quote(self.info.model)}/adapters{path}"
        headers = [(b"content-type", b"application/json")]
        status, answer = await self._proxy.ask(method, url, headers, body, self._grace, key=self.key)
        if status >= 400 and status != unless:
            raise refusal_from(status, answer)

    async def close(self) -> None:
        """End the process, and return when it is gone; one that is unhealthy gets no grace. Idempotent."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await self._prober.stop()
        if self._prober.healthy:
            self._child.terminate()
            await asyncio.wait((self._child.exited,), timeout=self._grace)
        self._child.kill()
        await self._child.ended

    # -- watching ------------------------------------------------------------------------------------

    def _watch(self) -> None:
        self._child.exited.add_done_callback(self._exited, context=contextvars.Context())
        self._prober.start()

    def _exited(self, status: asyncio.Future[int]) -> None:
        self._prober.cancel()
        if self._closing is None:
            logger.error("%s is gone: %s", self.name, self._child.epitaph, extra={"pid": self.pid})
            self._go_down()

    def _judge(self) -> None:
        if not self._prober.healthy and self._closing is None:
            self._go_down()

    def _go_down(self) -> None:
        on_down, self._on_down = self._on_down, lambda: None
        on_down()

    async def _probe(self) -> ProbeResult:
        result = await self._ask()
        await self._measure()
        return result

    async def _ask(self) -> ProbeResult:
        """Ask the worker for its status, on a new connection: it has to take those of new calls, too."""
        url, timeout = self.url + STATUS_PATH, min(self._interval, PROBE_SECONDS)
        try:
            code, body = await self._proxy.get(url, timeout=timeout, key=self.key, fresh=True)
            if code != 200:
                raise ValueError(f"it answered {code} {responses.get(code, '')}")
            status = WorkerStatus.from_json(body)
        except BackendTimedOut:
            return ProbeResult(False, "it does not answer")
        except (BackendFailed, ValueError) as error:
            return ProbeResult(False, f"it cannot be asked how it does: {error}")
        self._stats, self._metrics = status.stats, status.metrics
        return ProbeResult(status.ok, status.detail)

    async def _measure(self) -> None:
        """Sample the process's CPU and memory. What it has on a GPU only its engine knows."""
        try:
            self._figures = await asyncio.to_thread(self._meter.sample)
        except psutil.Error:
            return  # it is gone, or is another user's
        if "cpu" in self.info.devices:
            self.info = replace(self.info, memory=max(self.info.memory, self._figures.memory))
