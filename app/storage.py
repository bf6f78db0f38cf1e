"""Storage: what outlives a restart, put together. It needs SQLAlchemy, so it is made when it is used."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.batches.kind import BatchKind, BatchLimits
from app.batches.line_runner import Expand, LineRunner
from app.batches.pace import BatchPace
from app.batches.service import Batches
from app.batches.store import BatchStore
from app.batches.validation import CheckModel
from app.database.database import Database
from app.database.errors import DatabaseUnavailable
from app.files.store import FileStore
from app.inference.intake import Intake
from app.inference.pipeline import Pipeline
from app.inference.response import AnswerObserver
from app.inference.wire_request import WireRequest
from app.jobs.claims import RunnerClaim, place_of
from app.jobs.runner import JobRunner
from app.jobs.store import JobStore
from app.operations.kept_pulls import PullKind, note_pull
from app.operations.pulls import Pulls
from app.response_store.exchange import ResponseExchange
from app.response_store.store import ResponseStore
from app.settings import Settings
from app.telemetry.logs import get_logger
from balancer.foreground import Foreground
from engines.machine.background import BackgroundTasks
from engines.models.catalog import parse_duration
from engines.models.pull.jobs import PullJob

log = get_logger("storage")

# Seconds between two looks for files whose time is over.
CLEAN_EVERY = 3600.0


@dataclass(frozen=True, slots=True)
class Inferences:
    """What batches need of the server: how requests are answered, and what it knows of models."""

    intake: Intake
    pipeline: Pipeline
    responses: ResponseStore
    foreground: Foreground
    check_model: CheckModel
    is_loaded: Callable[[str], bool]
    large_bodies: asyncio.Lock


class Storage:
    """The files, batches and jobs of one server. ``place`` names its folder for state."""

    def __init__(
        self, settings: Settings, database: Database, place: str, inferences: Inferences, pulls: Pulls
    ) -> None:
        folder = settings.state_folder
        self._database = database
        retention = parse_duration(settings.file_retention)
        self.files = FileStore(
            database,
            folder / "files",
            most_bytes=settings.max_stored_bytes,
            retention=retention if retention >= 0 else None,
        )
        self._job_store = JobStore(database, place)
        self.jobs = JobRunner(self._job_store, RunnerClaim(folder / "servers"))
        batches = BatchStore(database)
        pace = BatchPace(
            inferences.foreground,
            idle=min(settings.batch_concurrency, settings.max_concurrent_requests),
            busy=settings.batch_concurrency_busy,
            clock=time.monotonic,
        )
        kind = BatchKind(
            database,
            batches,
            self.files,
            folder / "batches",
            LineRunner(
                pace,
                inferences.intake,
                inferences.pipeline,
                _expand(inferences.responses, settings.max_request_bytes),
                inferences.is_loaded,
            ),
            inferences.check_model,
            BatchLimits(at_once=settings.batch_concurrency, line_bytes=settings.max_request_bytes),
            inferences.large_bodies,
        )
        self.jobs.register(kind)
        self.jobs.register(PullKind(pulls))
        self.batches = Batches(database, batches, self.files, self.jobs, kind)
        self._background = BackgroundTasks()

    async def note_pull(self, pull: PullJob, arguments: Mapping[str, Any]) -> None:
        """Have ``pull`` go on after a restart. Returns when it has ended."""
        await note_pull(self._database, self.jobs, pull, arguments)

    async def start(self) -> None:
        await self.jobs.start()
        self._background.start(self._keep_clean())

    async def stop(self) -> None:
        self._background.cancel()
        await self.jobs.stop()

    async def _keep_clean(self) -> None:
        while True:
            try:
                await self.files.clean()
                await self._job_store.clean()
            except (DatabaseUnavailable, OSError) as error:
                log.warning("cleaning_failed", error=str(error))
            await asyncio.sleep(CLEAN_EVERY)


def _expand(responses: ResponseStore, most_bytes: int) -> Expand:
    """A batch would push everything else out of the store: of its answers only those are kept that ask for
    it."""

    async def expand(
        owner: str, wire: WireRequest, document: Any
    ) -> tuple[WireRequest, Any, AnswerObserver | None]:
        exchange = ResponseExchange(responses, owner, most_bytes)
        wire, whole = await exchange.expand(wire, document)
        return wire, whole, exchange.keeper(document) if document.get("store") is True else None

    return expand


async def open_storage(
    settings: Settings, database: Database, inferences: Inferences, pulls: Pulls
) -> Storage:
    """Raises `DatabaseUnavailable`, also where the folder for state cannot be written to."""
    try:
        place = await asyncio.to_thread(place_of, settings.state_folder)
    except OSError as error:
        raise _no_folder(settings.state_folder, error) from error
    return Storage(settings, database, place, inferences, pulls)


def _no_folder(folder: Path, error: OSError) -> DatabaseUnavailable:
    return DatabaseUnavailable(f"The folder {folder} cannot be used: {error}. See STATE_DIR.")
