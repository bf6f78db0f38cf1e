"""Library watch: takes up what changes in the catalog and the model folder while the server runs."""

from __future__ import annotations

import asyncio
import logging

from balancer.fleet import Fleet
from engines.lifecycle.manager import ModelManager
from engines.machine.background import BackgroundTasks
from engines.models.catalog import CatalogError
from engines.models.library import Library, Reading

logger = logging.getLogger("server")

# The catalog and the model folder are looked at every so many seconds.
RELOAD_SECONDS = 2.0


class LibraryWatch:
    """Has models that appeared, changed or went loaded, renewed and unloaded."""

    def __init__(self, library: Library, manager: ModelManager, fleet: Fleet) -> None:
        self._library = library
        self._manager = manager
        self._fleet = fleet
        self._background = BackgroundTasks()

    def stop(self) -> None:
        self._background.cancel()

    def reload(self) -> None:
        """Take up what changed in the catalog and the model folder."""
        self._take_up(self._library.read())

    def _take_up(self, reading: Reading) -> None:
        try:
            changes = self._library.adopt(reading)
        except CatalogError as error:
            logger.error("the catalog is left as it was: %s", error)
            return
        if changes:
            logger.info(
                "models changed: added %s, removed %s, changed %s (settings count from the next load)",
                list(changes.added),
                list(changes.removed),
                list(changes.changed),
            )
        for name in changes.changed:
            self._manager.renew(name)
        for name in changes.added:
            if self._library.find(name).entry.preload:
                self._fleet.ensure(name)
                self._manager.want(name, modest=True)
        for name in changes.removed:
            self._background.start(self._forget(name))
        for name in changes.overwritten:
            self._background.start(self._let_go(name))
        self._fleet.changed()

    async def _forget(self, name: str) -> None:
        await self._fleet.unload(name, force=False)
        if self._library.get(name) is None:
            self._fleet.forget(name)

    async def _let_go(self, name: str) -> None:
        """Unload a model whose file was overwritten: what is in memory follows the file, page by page."""
        keys = [each.key for each in self._fleet.instances(name)]
        if all(self._manager.resident(key) is None for key in keys):
            return
        logger.error(
            "the file of model %s was overwritten while it is loaded: its answers may be wrong, and if the "
            "file became shorter, this process may be killed (SIGBUS). The model is unloaded once its "
            "requests have ended. To replace a model's file, write it under another name, then rename it",
            name,
        )
        was_pinned, options = self._manager.status(name).pinned, self._manager.options(name)
        await asyncio.gather(*(self._manager.unload(key, again=True) for key in keys))
        if was_pinned and self._library.get(name) is not None:
            self._manager.want(name, options)

    async def keep_looking(self) -> None:
        while True:
            await asyncio.sleep(RELOAD_SECONDS)
            try:
                if await asyncio.to_thread(self._library.changed):
                    self._take_up(await asyncio.to_thread(self._library.read))
            except Exception:
                logger.exception("looking for changed models failed")
