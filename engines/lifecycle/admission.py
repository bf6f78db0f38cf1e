"""Admission of models: gathers what is wanted, has the planner decide, and begins what it decided."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from engines.errors import EngineError
from engines.lifecycle.planner import AdmissionPlan, Want, plan
from engines.lifecycle.record import Record
from engines.lifecycle.records import Records
from engines.lifecycle.states import LoadOptions, ModelState
from engines.lifecycle.transitions import Lifecycle, Loader
from engines.machine.background import BackgroundTasks
from engines.machine.footprint import Footprint
from engines.machine.reaction import Reaction

logger = logging.getLogger("engines.lifecycle")


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """``max_models`` at once within ``budget``; health is looked at every ``interval`` seconds."""

    max_models: int
    budget: Footprint
    interval: float = 1.0


class Admission:
    """Admission of models to memory. `review` plans anew; it is called after every change.

    ``on_change`` is called when a waiting request might be served or refused now.
    """

    def __init__(
        self,
        records: Records,
        lifecycle: Lifecycle,
        loader: Loader,
        limits: ModelLimits,
        clock: Callable[[], float],
        on_change: Callable[[], None],
    ) -> None:
        self.limits = limits
        self.demanded: tuple[str, ...] = ()
        self._records = records
        self._lifecycle = lifecycle
        self._loader = loader
        self._clock = clock
        self._on_change = on_change
        self._wanted: list[Want] = []
        self._studied: dict[str, bool] = {}  # what is read for estimates, and whether that is over
        self._studies = BackgroundTasks()
        self.review = Reaction(self._review)
        self._closed = False

    def demand(self, names: tuple[str, ...]) -> None:
        """Requests wait for these models, in the order of the first request for each."""
        if names or self.demanded:
            self.demanded = names
            self.review()

    def close(self) -> None:
        """Load nothing any more, whoever still waits."""
        self._closed = True
        self._studies.cancel()

    def _review(self) -> None:
        """Make a plan and begin what it says; what that changes may lead to another plan."""
        if not self._closed:
            self._apply(self._next_plan())

    def _next_plan(self) -> AdmissionPlan:
        self._wanted = wants = self._wants()
        # What a sleeper keeps is part of what it takes when it wakes.
        waking = {want.name for want in wants}
        occupants = [record.occupant() for record in self._records.holders() if record.name not in waking]
        return plan(occupants, wants, max_models=self.limits.max_models, budget=self.limits.budget)

    def _may_sleep(self, record: Record) -> bool:
        """Whether what waits for room would fit beside what ``record`` keeps while it sleeps."""
        if record.engine is None or record.replica_of is not None:
            return False
        asleep = Footprint(ram=record.engine.info.memory_asleep)
        room = self.limits.budget - (self._records.used - record.footprint + asleep)
        return all(want.memory.fits(room) for want in self._wanted)

    def _wants(self) -> list[Want]:
        """Loads to do, most urgent first: those that operators asked for, those that requests wait for, then
        modest ones and second tries.

        No model makes way for the last two: a model in use is worth more than one that may be.
        """
        intended = [record for record in self._records if record.intended]
        fresh = [record.name for record in intended if not (record.modest or record.is_retried)]
        urgent = dict.fromkeys((*fresh, *self.demanded))
        wants = []
        for name in (*urgent, *(r.name for r in intended if r.name not in urgent)):
            record = self._records.ensure(name)
            if not record.can_load(self._clock()):
                continue
            if not self._is_studied(record):
                break  # who wants something later does not take its room meanwhile
            if self._estimated(record):
                memory, modest = record.memory or Footprint(), name not in urgent
                wants.append(Want(name, memory, modest=modest, replica=record.replica_of is not None))
        return wants

    def _estimated(self, record: Record) -> bool:
        """Whether the memory for ``record`` is known now; a model that cannot be loaded fails here."""
        if not _has_estimate(record):
            try:
                record.memory = self._loader.estimate(record.name, record.options)
            except EngineError as error:
                self._lifecycle.fail(record, error)
                self._on_change()
                return False
            record.memory_of = record.options
        return True

    def _is_studied(self, record: Record) -> bool:
        """Whether an estimate is quick; if not, what it needs is read in the background, and planned anew."""
        if _has_estimate(record):
            return True
        name, options = record.name, record.options
        is_over = self._studied.get(name)
        if is_over or (is_over is None and self._loader.can_estimate(name, options)):
            # If it still is not quick, as with a file that changes all the time, once was enough.
            self._studied.pop(name, None)
            return True
        if is_over is None:
            self._studied[name] = False
            self._studies.start(self._study(name, options))
        return False

    async def _study(self, name: str, options: LoadOptions) -> None:
        try:
            await self._loader.study(name, options)
        finally:
            self._studied[name] = True
            self.review()

    def _apply(self, decided: AdmissionPlan) -> None:
        news = False
        for record in self._records:
            yielding, refusal = record.name in decided.yielding, decided.refused.get(record.name)
            news |= (record.yielding and not yielding) or refusal != record.refusal
            if refusal != record.refusal:
                record.refusal = refusal
                self._lifecycle.notify(record)
                if refusal is not None:
                    logger.warning("model %s cannot be loaded: %s", record.name, refusal)
            record.yielding = yielding
        for name in decided.evict:
            record = self._records[name]
            if record.state is ModelState.SLEEPING:
                self._lifecycle.drain(record)
                continue
            self._lifecycle.counts["evictions"] += 1
            self._lifecycle.evict(record, may_sleep=self._may_sleep(record))
        for name in decided.load:
            self._lifecycle.load(self._records[name])
        if news:
            self._on_change()


def _has_estimate(record: Record) -> bool:
    return record.memory is not None and record.memory_of == record.options
