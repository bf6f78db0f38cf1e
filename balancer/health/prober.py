"""Prober: asks a backend how it is, again and again, and keeps the verdict."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from balancer.health.tracker import HealthTracker

logger = logging.getLogger("balancer.health.prober")

# Seconds that a backend has to answer a probe. A live server's event loop does so in milliseconds.
PROBE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The result of one probe. ``ok`` is None if it says nothing of the backend's health.

    ``detail`` is for people: why the backend is not ok, or what else is wrong with it.
    """

    ok: bool | None
    detail: str = ""


class Prober:
    """A task that probes a backend every ``interval`` seconds, and every second while there is doubt.

    ``probe`` asks once and does not raise. ``on_result`` is called after each probe and each suspicion, when
    ``healthy`` and ``detail`` are up to date. The thresholds are those of `HealthTracker`.
    """

    def __init__(
        self,
        probe: Callable[[], Awaitable[ProbeResult]],
        on_result: Callable[[], None],
        *,
        interval: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._probe = probe
        self._on_result = on_result
        self._interval = interval
        self._sleep = sleep
        self._tracker = HealthTracker()
        self._detail = ""
        self._is_suspected = False
        self._task: asyncio.Task[None] | None = None
        self._pause: asyncio.Future[None] | None = None

    @property
    def healthy(self) -> bool:
        """True until enough probes and suspicions spoke against it."""
        return self._tracker.healthy

    @property
    def detail(self) -> str:
        """What the last probe said, or that calls fail."""
        return self._detail

    def start(self) -> None:
        """Begin with a probe at once. Idempotent."""
        if self._task is None:
            # In a context of its own, or its log lines would carry the id of the request that started it.
            self._task = asyncio.get_running_loop().create_task(self._run(), context=contextvars.Context())

    def cancel(self) -> None:
        """Stop without waiting for the probe that is under way."""
        if self._task is not None:
            self._task.cancel()

    async def stop(self) -> None:
        """Stop, and return when no probe is under way any more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    def suspect(self) -> None:
        """A call failed on the backend: that counts as a failed probe, and the next one comes at once.

        Calls that fail together, before that probe has come, are one piece of evidence.
        """
        if self._is_suspected:
            return
        self._is_suspected = True
        if not self._tracker.suspect():
            self._detail = self._detail or "its calls fail"
        self._on_result()
        if self._pause is not None:
            self._pause.cancel()

    async def _run(self) -> None:
        while True:
            self._take(await self._ask())
            if not self._is_suspected:
                await self._wait(self._tracker.next_probe(self._interval))
            self._is_suspected = False

    async def _ask(self) -> ProbeResult:
        try:
            return await self._probe()
        except Exception as error:  # a mistake of ours must not end the watch
            logger.exception("a probe failed in an unexpected way")
            return ProbeResult(False, f"it cannot be probed: {error}")

    def _take(self, result: ProbeResult) -> None:
        self._detail = result.detail
        if result.ok is not None:
            self._tracker.observe(result.ok)
        self._on_result()

    async def _wait(self, seconds: float) -> None:
        """Wait, unless `suspect` cuts it short."""
        self._pause = asyncio.ensure_future(self._sleep(seconds))
        try:
            await asyncio.wait((self._pause,))
        finally:
            self._pause.cancel()
            self._pause = None
