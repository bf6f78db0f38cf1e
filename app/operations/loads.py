"""Loads that operators ask for: checked before any model is touched, made anew where something changed."""

from __future__ import annotations

import asyncio

from balancer.fleet import Fleet
from engines.lifecycle.errors import ModelConflict, NeverFits
from engines.lifecycle.loader import ModelLoader
from engines.lifecycle.manager import ModelManager
from engines.lifecycle.planner import Occupant, Want, never
from engines.lifecycle.states import LoadOptions, ModelState
from engines.models.model import Model

_LOADED = (ModelState.READY, ModelState.SLEEPING)


class Loads:
    """Begins loads. ``patience`` is how many seconds one that is waited for waits for room."""

    def __init__(self, fleet: Fleet, manager: ModelManager, loader: ModelLoader, patience: float) -> None:
        self._fleet = fleet
        self._manager = manager
        self._loader = loader
        self._patience = patience

    async def load(
        self,
        model: Model,
        options: LoadOptions,
        *,
        keep_alive: float | None = None,
        pin: bool | None = None,
        wait: bool = True,
    ) -> None:
        """Load ``model`` and return when it is ready, or (``wait`` False) at once. Raises `EngineError`."""
        self._fleet.ensure(model.name)
        await self._prepare(model.name, options)
        if not wait:
            self._manager.want(model.name, options, keep_alive=keep_alive, pin=pin)
            return
        await self._manager.load(model.name, options, keep_alive=keep_alive, pin=pin, patience=self._patience)

    async def _prepare(self, name: str, options: LoadOptions) -> None:
        """Check the load, and free what is loaded in another way than it would be now."""
        if not self._loader.can_estimate(name, options):
            await self._loader.study(name, options)
        is_loaded = self._manager.state(name) in _LOADED
        if is_loaded and not self._loader.is_outdated(name, options):
            return
        self._check_memory(name, options)
        if not is_loaded:
            return
        if self._manager.status(name).inflight:
            raise ModelConflict(
                f"model {name} is in use with other settings or from another file: unload it first"
            )
        keys = [each.key for each in self._fleet.instances(name)]
        await asyncio.gather(*(self._manager.unload(key, again=True) for key in keys))

    def _check_memory(self, name: str, options: LoadOptions) -> None:
        """Raises `NeverFits` if there cannot be enough, and `ModelLoadError` for what no load can succeed
        with."""
        want, limits = Want(name, self._loader.estimate(name, options)), self._manager.limits
        pinned = [
            Occupant(status.name, status.memory, pinned=True, replica=status.is_replica)
            for status in self._manager.statuses()
            if status.pinned and status.name != name and status.info is not None
        ]
        for occupants in ([], pinned):
            reason = never(occupants, want, max_models=limits.max_models, budget=limits.budget)
            if reason is not None:
                raise NeverFits(f"model {name} cannot be loaded: {reason}")
