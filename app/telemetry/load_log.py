"""The log of loads: how far they are, while they last, and one line when the server can answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from app import __version__
from app.first_steps import ready_fields
from app.settings import Settings
from app.telemetry.log_text import LOADING, READY
from app.telemetry.logs import get_logger
from engines.lifecycle.events import EventHub
from engines.lifecycle.states import ModelState, ModelStatus

log = get_logger(READY[0])

PROGRESS_SECONDS = 3.0
_LISTENING_SECONDS = 0.2


class LoadLog:
    """Tells of the loads in ``statuses``, and of ``model``, which is loaded first."""

    def __init__(
        self,
        settings: Settings,
        model: str,
        statuses: Callable[[], Sequence[ModelStatus]],
        events: EventHub,
    ) -> None:
        self._settings = settings
        self._model = model
        self._statuses = statuses
        self._events = events

    async def keep_telling(self) -> None:
        """A line for every load, every few seconds."""
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            for status in self._statuses():
                if status.state is ModelState.LOADING:
                    log.info(LOADING[1], **progress(status))

    async def tell_when_ready(self) -> None:
        """The line with how to use it, once the model is ready for the first time."""
        events = self._events.subscribe()
        try:
            while (status := self._ready()) is None:
                await anext(events)
        finally:
            events.close()
        # The server listens once its app has started: a little later than a model that is there at once.
        await asyncio.sleep(_LISTENING_SECONDS)
        log.info(READY[1], **self._fields(status))

    def _ready(self) -> ModelStatus | None:
        found = (status for status in self._statuses() if status.name == self._model and status.info)
        return next((status for status in found if status.state is ModelState.READY), None)

    def _fields(self, status: ModelStatus) -> dict[str, Any]:
        info = status.info
        assert info is not None
        about = {
            "version": __version__,
            "model": status.name,
            "engine": info.engine,
            "devices": list(info.devices),
            "context_length": info.context_length,
            "memory": str(status.memory),
        }
        return about | ready_fields(self._settings, status.name)


def progress(status: ModelStatus) -> dict[str, Any]:
    left = {} if status.eta_seconds is None else {"eta_seconds": round(status.eta_seconds)}
    return {"model": status.name, "phase": status.phase, "percent": round(status.progress * 100), **left}
