"""The health of loaded models, looked at regularly and whenever something happened to one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from engines.lifecycle.record import Record
from engines.lifecycle.records import Records
from engines.lifecycle.states import ModelState
from engines.lifecycle.transitions import Lifecycle

logger = logging.getLogger("engines.lifecycle")


class Watch:
    """The watch over loaded models: `start` makes it go round every ``interval()`` seconds, `look` once.

    ``on_round`` is called before each round. A model that is unhealthy is loaded again.
    """

    def __init__(
        self,
        records: Records,
        lifecycle: Lifecycle,
        interval: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        on_round: Callable[[], None],
    ) -> None:
        self._records = records
        self._lifecycle = lifecycle
        self._interval = interval
        self._sleep = sleep
        self._on_round = on_round
        self._rounds: asyncio.Task[None] | None = None
        self._checks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._rounds = asyncio.get_running_loop().create_task(self._go_round())

    async def stop(self) -> None:
        rounds, self._rounds = self._rounds, None
        if rounds is not None:
            rounds.cancel()
            await asyncio.gather(rounds, return_exceptions=True)
        for check in self._checks:
            check.cancel()

    def look(self, record: Record) -> None:
        """Check the model's health now."""
        check = asyncio.get_running_loop().create_task(self._check(record))
        self._checks.add(check)
        check.add_done_callback(self._checks.discard)

    async def _go_round(self) -> None:
        while True:
            await self._sleep(self._interval())
            try:
                self._on_round()
                for record in self._records:
                    await self._check(record)
            except Exception:
                logger.exception("looking after the models failed; it goes on")

    async def _check(self, record: Record) -> None:
        engine = record.engine
        if engine is None or record.state is not ModelState.READY:
            return
        health = await engine.health()
        if not health.ok and record.engine is engine and record.state is ModelState.READY:
            self._lifecycle.crash(record, health.detail)
