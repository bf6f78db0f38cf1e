"""Restarts of instances on an operator's word, one after the other."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from app.operations.errors import CannotRestart, RestartFailed
from balancer.fleet import Fleet
from engines.errors import EngineError
from engines.lifecycle.errors import ModelConflict

logger = logging.getLogger("cluster")

# After an instance did not come back, in seconds.
RETRY = 10.0


@dataclass(frozen=True, slots=True)
class Restart:
    """An instance that came back, ``seconds`` after it was told to go."""

    instance_id: str
    seconds: float


class Restarts:
    """One restart of one or more instances at a time, so that all but one of them always serve."""

    def __init__(self, fleet: Fleet, clock: Callable[[], float] = time.monotonic) -> None:
        self._fleet = fleet
        self._clock = clock
        self._task: asyncio.Task[list[Restart]] | None = None
        self._left: list[str] = []

    def begin(self, instance_ids: Sequence[str]) -> asyncio.Task[list[Restart]]:
        """Restart the instances in this order, whether or not anybody awaits the task.

        The task raises `RestartFailed`, and leaves those after the failed one alone: what broke it would
        break them too. Raises `ModelConflict` while another restart is under way.
        """
        if self._left:
            names = ", ".join(self._left)
            raise ModelConflict(f"a restart is under way, with {names} still to come: wait until it is over")
        self._left = list(instance_ids)
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(self._over)
        return self._task

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> list[Restart]:
        restarted: list[Restart] = []
        while self._left:
            instance_id = self._left[0]
            backend = self._fleet.find(instance_id)
            if backend is not None:  # else it went meanwhile
                began = self._clock()
                try:
                    await self._fleet.restart(backend)
                except EngineError as error:
                    raise self._failure(instance_id, error, restarted) from error
                restarted.append(Restart(instance_id, self._clock() - began))
            del self._left[0]
        return restarted

    def _failure(self, instance_id: str, error: EngineError, restarted: Sequence[Restart]) -> RestartFailed:
        details = {
            "restarted": [asdict(each) for each in restarted],
            "failed": [instance_id],
            "untouched": self._left[1:],
        }
        message = f"{instance_id} did not come back: {error.message}"
        if error.is_permanent:
            return CannotRestart(message, details=details)
        return RestartFailed(message, retry_after=RETRY, details=details)

    def _over(self, task: asyncio.Task[list[Restart]]) -> None:
        self._left = []
        if not task.cancelled() and (failure := task.exception()) is not None:
            logger.error("the restart stopped: %s", failure)
