"""Holds of running requests on models, which keep a model loaded, and its keep-alive from running."""

from __future__ import annotations

from collections.abc import Callable

from engines.lifecycle.record import Record
from engines.lifecycle.records import Records
from engines.lifecycle.states import ModelState
from engines.lifecycle.transitions import Lifecycle


class Holds:
    """Counts of the requests on each model. One on a replica also holds the model it is a replica of."""

    def __init__(self, records: Records, lifecycle: Lifecycle, clock: Callable[[], float]) -> None:
        self._records = records
        self._lifecycle = lifecycle
        self._clock = clock

    def add(self, name: str, keep_alive: float | None) -> None:
        """A request begins. ``keep_alive``, in seconds, counts for later requests that ask for none too."""
        record = self._records.ensure(name)
        record.holds += 1
        original = self._records.original(record)
        if original is not None:
            original.replica_holds += 1
            record = original
        record.expires_at = None
        if keep_alive is not None:
            record.asked_keep_alive = keep_alive

    def remove(self, name: str) -> Record | None:
        """A request ended. Gives the model, not the replica, if it is idle now and may take others."""
        record = self._records[name]
        record.holds -= 1
        record.last_used = self._clock()
        original = self._records.original(record)
        if original is not None:
            original.replica_holds -= 1
            original.last_used = record.last_used
        if not record.holds and record.state is ModelState.DRAINING:
            self._lifecycle.drain(record)
        model = original or record
        if model.in_use or model.state is ModelState.DRAINING:
            return None
        model.note_idle(record.last_used)
        return model
