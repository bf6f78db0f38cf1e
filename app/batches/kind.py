"""Batches as jobs: validated, worked on and published, wherever a restart left them."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.batches.batch import ENDED, BatchStatus, StoredBatch
from app.batches.line_runner import Asker, LineRunner
from app.batches.lines import BatchLine, LineProblem, parse_line, read_lines
from app.batches.results import BatchResults
from app.batches.store import BatchStore
from app.batches.validation import CheckModel, InputReport, validate
from app.batches.work import BatchWork
from app.database.database import Database
from app.database.errors import DatabaseUnavailable
from app.files.store import FileStore
from app.files.stored import BATCH_OUTPUT
from app.jobs.job import Job, JobRun, JobState
from app.telemetry.logs import get_logger

log = get_logger("batches")

INPUT = "input.jsonl"
_EXPIRED = {"code": "batch_expired", "message": "This request was not answered within the batch's time."}


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """``lines`` of a batch at most, ``line_bytes`` of each, and how many are worked on ``at_once``."""

    at_once: int
    line_bytes: int
    lines: int = 50_000


class BatchKind:
    """Runs batches. What one has by now is in its folder below ``folder``, until its files are published."""

    name = "batch"
    at_once = 32

    def __init__(
        self,
        database: Database,
        store: BatchStore,
        files: FileStore,
        folder: Path,
        runner: LineRunner,
        check_model: CheckModel,
        limits: BatchLimits,
        large: asyncio.Lock,
    ) -> None:
        self._database = database
        self._store = store
        self._files = files
        self._folder = folder
        self._runner = runner
        self._check_model = check_model
        self._limits = limits
        self._large = large

    def folder(self, batch_id: str) -> Path:
        return self._folder / batch_id

    async def run(self, run: JobRun) -> JobState:
        batch = await self._store.of_job(run.job.id)
        if batch.status in ENDED:
            await self._clear(batch)
            return _state(batch.status)
        folder = self.folder(batch.id)
        if batch.status == "validating" and not run.cancelled.is_set():
            report = await self._validate(batch, folder / INPUT)
            if report.errors:
                values = {"errors": report.errors, "total": report.total, "failed_at": int(time.time())}
                await self._store.change(batch.id, status="failed", **values)
                await self._clear(batch)
                return "failed"
            model = next(iter(report.models)) if len(report.models) == 1 else None
            await self._store.enter(batch.id, "in_progress", total=report.total, model=model)
        return await self._work(batch, folder, run)

    async def give_up(self, job: Job, reason: str) -> None:
        batch = await self._store.of_job(job.id)
        if batch.status in ENDED:
            return
        error = {"code": "server_error", "line": None, "message": f"Not completed: {reason}.", "param": None}
        async with BatchResults(self.folder(batch.id)) as results:
            await self._publish(batch, results, "failed", errors=[error])

    async def _validate(self, batch: StoredBatch, path: Path) -> InputReport:
        try:
            return await validate(
                path,
                batch.endpoint,
                self._check_model,
                large=self._large,
                most_lines=self._limits.lines,
                most_line_bytes=self._limits.line_bytes,
            )
        except FileNotFoundError:
            report = InputReport()
            report.note("file_not_found", "The input file is not there any more.")
            return report

    async def _work(self, batch: StoredBatch, folder: Path, run: JobRun) -> JobState:
        asker = Asker(**run.job.arguments["asker"])
        async with BatchResults(folder) as results:

            async def save() -> None:
                with suppress(DatabaseUnavailable):
                    await self._store.change(batch.id, **_counts(results))
                    if results.done:
                        await run.save_progress({"done": len(results.done)})

            outcome: BatchStatus
            async with aclosing(self._lines(folder / INPUT, batch.endpoint)) as lines:
                work = BatchWork(batch, lines, results, self._runner, asker, self._limits.at_once)
                outcome = await work.run(run.cancelled, save)
            if outcome == "completed":
                await self._store.enter(batch.id, "finalizing", **_counts(results))
            if outcome == "expired":
                async with aclosing(self._lines(folder / INPUT, batch.endpoint)) as lines:
                    async for line in lines:
                        if line.custom_id not in results.done:
                            await results.add(line.custom_id, None, _EXPIRED)
            await self._publish(batch, results, outcome)
        log.info("batch_ended", batch=batch.id, status=outcome, lines=len(results.done))
        return _state(outcome)

    async def _lines(self, path: Path, endpoint: str) -> AsyncGenerator[BatchLine]:
        async with aclosing(read_lines(path, self._limits.line_bytes)) as raw_lines:
            async for raw in raw_lines:
                with suppress(LineProblem):  # validated before
                    yield await parse_line(raw, endpoint, self._large, self._limits.line_bytes)

    async def _publish(
        self, batch: StoredBatch, results: BatchResults, status: BatchStatus, **values: Any
    ) -> None:
        """Make files of the results, and end the batch, at once; done again it changes nothing."""
        ids: dict[str, str] = {}
        async with self._database.writing() as connection:
            for name, path, count in (
                ("output", results.output, results.completed),
                ("error", results.errors, results.failed),
            ):
                if count:
                    file = await self._files.adopt(
                        connection,
                        _file_id(batch.id, name),
                        batch.owner,
                        BATCH_OUTPUT,
                        f"{batch.id}_{name}.jsonl",
                        path,
                        batch.output_expires_after,
                    )
                    ids[f"{name}_file_id"] = file.id
            values |= {**_counts(results), **ids, "status": status, f"{status}_at": int(time.time())}
            await self._store.change_with(connection, batch.id, **values)
        await self._clear(batch)

    async def _clear(self, batch: StoredBatch) -> None:
        await asyncio.to_thread(shutil.rmtree, self.folder(batch.id), ignore_errors=True)


def _counts(results: BatchResults) -> dict[str, Any]:
    return {
        "completed": results.completed,
        "failed": results.failed,
        "usage": results.usage.document(),
    }


def _file_id(batch_id: str, name: str) -> str:
    """The same each time, so that a file is published once."""
    return f"file-{hashlib.sha256(f'{batch_id}/{name}'.encode()).hexdigest()[:32]}"


def _state(status: BatchStatus) -> JobState:
    if status == "completed":
        return "succeeded"
    return "cancelled" if status == "cancelled" else "failed"
