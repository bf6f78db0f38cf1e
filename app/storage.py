"""Storage: what outlives a restart, put together. It needs SQLAlchemy, so it is made when it is used."""

from __future__ import annotations

import asyncio
from pathlib import Path

from app.database.database import Database
from app.database.errors import DatabaseUnavailable
from app.files.store import FileStore
from app.jobs.claims import RunnerClaim, place_of
from app.jobs.runner import JobRunner
from app.jobs.store import JobStore
from app.settings import Settings
from app.telemetry.logs import get_logger
from engines.machine.background import BackgroundTasks
from engines.models.catalog import parse_duration

log = get_logger("storage")

# Seconds between two looks for files whose time is over.
CLEAN_EVERY = 3600.0


class Storage:
    """The files and jobs of one server. ``place`` names its folder for state."""

    def __init__(self, settings: Settings, database: Database, place: str) -> None:
        folder = settings.state_folder
        retention = parse_duration(settings.file_retention)
        self.files = FileStore(
            database,
            folder / "files",
            most_bytes=settings.max_stored_bytes,
            retention=retention if retention >= 0 else None,
        )
        self._job_store = JobStore(database, place)
        self.jobs = JobRunner(self._job_store, RunnerClaim(folder / "servers"))
        self._background = BackgroundTasks()

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


async def open_storage(settings: Settings, database: Database) -> Storage:
    """Raises `DatabaseUnavailable`, also where the folder for state cannot be written to."""
    try:
        place = await asyncio.to_thread(place_of, settings.state_folder)
    except OSError as error:
        raise _no_folder(settings.state_folder, error) from error
    return Storage(settings, database, place)


def _no_folder(folder: Path, error: OSError) -> DatabaseUnavailable:
    return DatabaseUnavailable(f"The folder {folder} cannot be used: {error}. See STATE_DIR.")
