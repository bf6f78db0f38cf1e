"""The work on one batch: its requests are answered, a few at a time, until all are or its time is over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal

from app.batches.batch import StoredBatch
from app.batches.line_runner import Asker, LineRunner
from app.batches.lines import BatchLine
from app.batches.results import BatchResults

SAVE_EVERY = 1.0

Outcome = Literal["completed", "cancelled", "expired"]


class BatchWork:
    """Answers what is not answered yet of a batch's ``lines``, ``at_once`` at a time."""

    def __init__(
        self,
        batch: StoredBatch,
        lines: AsyncIterator[BatchLine],
        results: BatchResults,
        runner: LineRunner,
        asker: Asker,
        at_once: int,
    ) -> None:
        self._batch = batch
        self._lines = lines
        self._results = results
        self._runner = runner
        self._asker = asker
        self._at_once = at_once
        self._next = asyncio.Lock()

    async def run(self, cancelled: asyncio.Event, save: Callable[[], Awaitable[None]]) -> Outcome:
        """Work until all is done, or ``cancelled``, or the batch expires; ``save`` is called now and then.

        Raises `OSError` where results cannot be written.
        """
        workers = asyncio.ensure_future(self._work_together())
        cancelling = asyncio.ensure_future(cancelled.wait())
        saving = asyncio.ensure_future(self._keep_saving(save))
        left = self._batch.expires_at - time.time()
        try:
            await asyncio.wait(
                (workers, cancelling), timeout=max(left, 0), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            ends = [saving, cancelling] if workers.done() else [saving, cancelling, workers]
            for each in ends:
                each.cancel()
            await asyncio.wait(ends)
        if not workers.cancelled():
            workers.result()
            return "completed"
        return "cancelled" if cancelled.is_set() else "expired"

    async def _work_together(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._at_once):
                    group.create_task(self._work())
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _work(self) -> None:
        while (line := await self._take()) is not None:
            answer = await self._runner.run(self._batch.endpoint, line, self._asker)
            await self._results.add(line.custom_id, answer.document())

    async def _take(self) -> BatchLine | None:
        """The next line that is not answered."""
        async with self._next:
            async for line in self._lines:
                if line.custom_id not in self._results.done:
                    return line
        return None

    async def _keep_saving(self, save: Callable[[], Awaitable[None]]) -> None:
        seen = -1
        while True:
            if (count := len(self._results.done)) != seen:
                seen = count
                await save()
            await asyncio.sleep(SAVE_EVERY)
