"""Pace: how many requests of batches run at once, so that those that somebody waits for come first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from balancer.foreground import Foreground

T = TypeVar("T")

# Seconds without a request of others, after which batches may have the machine; and where their model would
# have to be loaded, for which the others' may have to go.
QUIET, QUIET_FOR_LOAD = 1.0, 20.0
# Seconds for which a request of others has to last before batches make way: many are over in less.
NOTICE = 0.03
# However busy the others are, a request that has waited so many seconds begins, one at a time; the second is
# for those whose model would have to be loaded.
PATIENCE, PATIENCE_FOR_LOAD = 60.0, 600.0
_LOOK_AGAIN = 0.25


class MadeWay(Exception):
    """A request was interrupted, as others came; it is to be run again."""


class BatchPace:
    """Turns for requests of batches: up to ``idle`` at once while nobody else asks, else up to ``busy``.

    Who runs beyond that when others come is interrupted: a step computes a token for every sequence, so each
    that runs beside them slows the others down. After that fewer run at once, and one more with each that
    gets to its end: a pause between the others' requests is long enough for a few, not for many.
    """

    def __init__(
        self,
        foreground: Foreground,
        *,
        idle: int,
        busy: int,
        clock: Callable[[], float],
    ) -> None:
        self._foreground = foreground
        self._idle = idle
        self._busy = busy
        self._clock = clock
        self._most = idle  # at once, for now
        self._running: list[_Turn] = []
        self._changed = asyncio.Event()
        self._last = clock() - PATIENCE
        self._notice: asyncio.TimerHandle | None = None
        foreground.listen(self._on_foreground)

    @asynccontextmanager
    async def turn(self, is_loaded: Callable[[], bool]) -> AsyncIterator[_Turn]:
        """A place for one request, once there is one. ``is_loaded``: whether its model is."""
        since = self._clock()
        while (turn := self._granted(is_loaded(), since)) is None:
            await self._change()
        self._running.append(turn)
        self._last = self._clock()
        try:
            yield turn
            self._most = min(self._most + (not turn.made_way), self._idle)
        finally:
            self._running.remove(turn)
            self._tell()

    def _granted(self, is_loaded: bool, since: float) -> _Turn | None:
        quiet = self._foreground.quiet_seconds >= (QUIET if is_loaded else QUIET_FOR_LOAD)
        running = len(self._running)
        if running < (max(self._most, self._busy) if quiet else self._busy):
            return _Turn()
        waited = self._clock() - since
        is_due = waited >= (PATIENCE if is_loaded else PATIENCE_FOR_LOAD)
        if is_due and not running and self._clock() - self._last >= PATIENCE:
            return _Turn(is_patient=True)
        return None

    async def _change(self) -> None:
        try:
            await asyncio.wait_for(self._changed.wait(), _LOOK_AGAIN)
        except TimeoutError:
            return

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _on_foreground(self) -> None:
        if self._foreground.count and self._running and self._notice is None:
            self._notice = asyncio.get_running_loop().call_later(NOTICE, self._make_way)
        self._tell()

    def _make_way(self) -> None:
        self._notice = None
        if not self._foreground.count:
            return
        beyond = [each for each in self._running if not each.is_patient]
        if beyond[self._busy :]:
            self._most = max(1, self._most // 2)
        for turn in beyond[self._busy :]:
            turn.interrupt()


class _Turn:
    """A request's place. ``is_patient``: it waited so long that it may not be interrupted."""

    def __init__(self, *, is_patient: bool = False) -> None:
        self.is_patient = is_patient
        self.made_way = False
        self._task: asyncio.Task[Any] | None = None

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What ``work`` returns. Raises `MadeWay` if it was interrupted, and what it raises."""
        self._task = task = asyncio.create_task(work)
        try:
            return await task
        except asyncio.CancelledError:
            task.cancel()
            if self.made_way and not _is_cancelled():
                raise MadeWay from None
            raise

    def interrupt(self) -> None:
        self.made_way = True
        if self._task is not None:
            self._task.cancel()


def _is_cancelled() -> bool:
    """Whether somebody wants the present task to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
