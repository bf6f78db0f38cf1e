"""The replicas of models, which follow their first instances."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from balancer.instances import Instance
from engines.lifecycle.manager import ModelManager
from engines.lifecycle.states import ModelState
from engines.machine.background import BackgroundTasks

_GONE = (ModelState.STOPPED, ModelState.DRAINING)
_RESTING = (ModelState.STOPPED, ModelState.SLEEPING, ModelState.DRAINING)


class Replicas:
    """Has replicas loaded while the first instance of their model is, and unloaded when it is.

    ``excepted``: the keys of instances that somebody else loads and unloads now. ``on_unloaded`` is called
    after each unload that was begun here.
    """

    def __init__(
        self, manager: ModelManager, excepted: Collection[str], on_unloaded: Callable[[], None]
    ) -> None:
        self._manager = manager
        self._excepted = excepted
        self._on_unloaded = on_unloaded
        self._unloading: set[str] = set()
        self._tasks = BackgroundTasks()
        self._closed = False

    def tend(self, model: str, instances: Iterable[Instance]) -> None:
        """Look at the replicas among ``instances`` of ``model`` after any of them changed."""
        if self._closed:
            return
        state = self._manager.state(model)
        for instance in instances:
            key = instance.key
            if not instance.is_replica or key in self._excepted:
                continue
            there = self._manager.state(key)
            wanted = self._manager.is_wanted(key)
            if state is ModelState.READY and there is ModelState.STOPPED and not wanted:
                self._manager.want(key, self._manager.options(model), modest=True)
            elif state in _RESTING and model not in self._excepted and (wanted or there not in _GONE):
                self._begin_unload(key)

    def close(self) -> None:
        """Tend nothing any more."""
        self._closed = True
        self._tasks.cancel()

    def _begin_unload(self, key: str) -> None:
        """One at a time for each: an unload is itself a change, and so comes back to `tend`."""
        if key not in self._unloading:
            self._unloading.add(key)
            self._tasks.start(self._unload(key))

    async def _unload(self, key: str) -> None:
        try:
            await self._manager.unload(key)
        finally:
            self._unloading.discard(key)
        self._on_unloaded()
