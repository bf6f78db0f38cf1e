"""LoRA adapters that come and go while the server runs, on every instance of their model."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress

from app.operations.errors import AdapterExists, UnknownAdapter
from balancer.errors import BalancerError
from balancer.fleet import Fleet
from engines.base import Adapter, Adapts, Resident
from engines.errors import EngineError, RequestError, UnsupportedFeature
from engines.lifecycle.errors import ModelConflict
from engines.lifecycle.loader import ModelLoader
from engines.lifecycle.manager import ModelManager
from engines.lifecycle.states import ModelState
from engines.models.catalog import AdapterEntry
from engines.models.library import Library
from engines.models.model import Model, adapter_name

logger = logging.getLogger("engines.lifecycle")

# While calls for an adapter that is to go run or wait, it is looked at again after so many seconds.
DRAIN_POLL = 0.02


class AdapterOperations:
    """One adapter at a time. ``ongoing`` tells how many calls for an adapter, by its canonical name, there
    are."""

    def __init__(
        self,
        fleet: Fleet,
        manager: ModelManager,
        library: Library,
        loader: ModelLoader,
        ongoing: Callable[[str], int],
    ) -> None:
        self._fleet = fleet
        self._manager = manager
        self._library = library
        self._loader = loader
        self._ongoing = ongoing
        self._lock = asyncio.Lock()

    async def add(self, model: Model, name: str, path: str, scale: float) -> AdapterEntry:
        """Let ``model`` have an adapter until the server is started again; nothing changes if that fails.

        Raises `AdapterExists`, `RequestError`, `PathNotAllowed`, `EngineError` and `BalancerError`.
        """
        async with self._lock:
            if (there := self._find(model.name, name)) is not None:
                message = f"{model.name} has an adapter {there.name} already: remove it first"
                raise AdapterExists(message, "name")
            if self._library.get(name) is not None:
                raise RequestError(f"the name {name!r} is another model's or adapter's", "name")
            entry = self._library.adapters.new(name, path, scale)
            self._check_ability(model)
            adapter = self._library.adapters.loadable(entry)
            await asyncio.to_thread(self._loader.check_adapter, model.name, adapter)
            is_outdated = self._is_outdated(model.name)
            self._library.adapters.add(model.name, entry)
            try:
                for key in self._keys(model.name):
                    await self._bring(key, adapter)
            except BaseException:
                self._library.adapters.remove(model.name, entry.name)
                await asyncio.shield(self._take_away(model.name, entry.name))
                raise
            self._note(model.name, is_outdated)
            logger.info("model %s has the adapter %s", model.name, entry.name)
            return entry

    async def remove(self, model: Model, name: str) -> str:
        """Take an adapter away that `add` gave; requests for it end first. Returns its canonical name.

        Raises `UnknownAdapter`, and `ModelConflict` for one of the catalog.
        """
        async with self._lock:
            entry = self._find(model.name, name)
            if entry is None:
                known = ", ".join(each.name for each in model.entry.adapters) or "none"
                raise UnknownAdapter(f"{model.name} has no adapter {name!r} (adapters: {known}).", "name")
            if entry not in self._library.adapters.added_to(model.name):
                raise ModelConflict(
                    f"the adapter {entry.name} is one of models.yaml: take it out there, then load the model"
                )
            is_outdated = self._is_outdated(model.name)
            self._library.adapters.remove(model.name, entry.name)
            await self._idle(adapter_name(model.name, entry.name))
            await self._take_away(model.name, entry.name)
            self._note(model.name, is_outdated)
            logger.info("model %s lost the adapter %s", model.name, entry.name)
            return entry.name

    def _find(self, model: str, name: str) -> AdapterEntry | None:
        """The adapter of ``model`` that ``name`` means, by its own name or behind the model's."""
        adapters = self._library.find(model).entry.adapters
        wanted = (self._library.adapters.named(name) or name).lower()
        return next((each for each in adapters if each.name.lower() == wanted), None)

    def _check_ability(self, model: Model) -> None:
        info = self._manager.status(model.name).info
        able = self._loader.abilities(model).capabilities if info is None else info.capabilities
        if "adapters" not in able:
            raise UnsupportedFeature(
                f"{model.name} takes no adapters: its engine has none, it was not loaded for them (vLLM: "
                "`options: {enable_lora: true}` in models.yaml), or it generates no text",
                param="model",
            )

    def _keys(self, model: str) -> Iterator[str]:
        return (each.key for each in self._fleet.instances(model))

    async def _bring(self, key: str, adapter: Adapter) -> None:
        """Have an instance load the adapter; one that is not loaded does so when it is."""
        resident = await self._resident(key)
        if resident is None:
            return
        if not isinstance(resident, Adapts):
            raise UnsupportedFeature(f"the engine of {resident.info.model} takes no adapters", param="model")
        await resident.add_adapter(adapter)

    async def _take_away(self, model: str, name: str) -> None:
        for key in self._keys(model):
            resident: object = await self._resident(key)
            if isinstance(resident, Adapts):
                try:
                    await resident.remove_adapter(name)
                except (EngineError, BalancerError) as error:  # it goes with the instance then
                    logger.warning("%s keeps the adapter %s: %s", key, name, error)

    async def _resident(self, key: str) -> Resident | None:
        """What is loaded for an instance, after a load that is under way. What sleeps is let go: its next
        load has the adapters of that time."""
        manager = self._manager
        if manager.state(key) is ModelState.LOADING:
            with suppress(EngineError):  # then nothing of it is loaded
                await manager.load(key, manager.options(key))
        if manager.state(key) is ModelState.SLEEPING:
            await manager.unload(key, again=True)
        return manager.resident(key)

    async def _idle(self, name: str) -> None:
        """Return when no call for the adapter runs or waits."""
        while True:
            if not self._ongoing(name):
                return
            await asyncio.sleep(DRAIN_POLL)

    def _is_outdated(self, model: str) -> bool:
        return self._loader.is_outdated(model, self._manager.options(model))

    def _note(self, model: str, was_outdated: bool) -> None:
        """What is loaded has what the library says, unless it was otherwise before."""
        if not was_outdated and self._manager.was_wanted(model):
            self._loader.note_load(model, self._manager.options(model))
