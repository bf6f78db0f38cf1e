"""Batches, as routes see them: made, looked at and cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from uuid import uuid4

from app.batches.batch import ENDED, StoredBatch
from app.batches.endpoints import ENDPOINTS
from app.batches.kind import INPUT, BatchKind
from app.batches.line_runner import Asker
from app.batches.store import BatchStore
from app.database.database import Database
from app.database.page_query import PageQuery
from app.errors import ApiError
from app.files.store import FileStore, link_file
from app.files.stored import BATCH, bad_field
from app.jobs.runner import JobRunner
from engines.models.catalog import parse_duration

# Of one key, that have not ended.
MOST_UNFINISHED = 100
SHORTEST_WINDOW, LONGEST_WINDOW = 60.0, 30 * 86400.0


class Batches:
    """The batches of all owners, each of whom sees only theirs."""

    def __init__(
        self, database: Database, store: BatchStore, files: FileStore, jobs: JobRunner, kind: BatchKind
    ) -> None:
        self._database = database
        self._store = store
        self._files = files
        self._jobs = jobs
        self._kind = kind

    async def create(
        self,
        *,
        owner: str,
        client: str,
        admin: bool,
        input_file_id: str,
        endpoint: str,
        window: str,
        metadata: Mapping[str, str] | None,
        output_life: int | None,
    ) -> StoredBatch:
        """A new batch; ``owner``, ``client``, ``admin`` as `AuthMiddleware` tells them. Raises `ApiError`."""
        asker = Asker(owner, client, admin)
        if endpoint not in ENDPOINTS:
            raise bad_field("endpoint", f"must be one of {', '.join(ENDPOINTS)}")
        seconds = _seconds(window)
        file = await self._files.get(owner, input_file_id)
        if file.purpose != BATCH:
            raise bad_field("input_file_id", f"is a file for {file.purpose}: upload it with purpose=batch")
        now = int(self._store.clock())
        batch = StoredBatch(
            id=f"batch_{uuid4().hex}",
            owner=owner,
            endpoint=endpoint,
            input_file_id=file.id,
            completion_window=window,
            status="validating",
            created_at=now,
            expires_at=now + int(seconds),
            metadata=metadata,
            output_expires_after=output_life,
        )
        # Its own, so that it may be deleted meanwhile.
        await asyncio.to_thread(link_file, self._files.path(file), self._folder(batch) / INPUT)
        async with self._database.writing() as connection:
            if await self._store.count_unfinished(connection, owner) >= MOST_UNFINISHED:
                message = f"You have {MOST_UNFINISHED} batches that have not ended: wait, or cancel some."
                raise ApiError(429, "rate_limit_exceeded", message, retry_after=60)
            await self._store.add(connection, batch)
            arguments = {"asker": asdict(asker)}
            await self._jobs.submit(connection, self._kind.name, owner, arguments, batch.id)
        self._jobs.wake()
        return batch

    async def get(self, owner: str, id: str) -> StoredBatch:
        """Raises `ApiError`."""
        return await self._store.get(owner, id)

    async def page(self, owner: str, query: PageQuery) -> tuple[list[StoredBatch], bool]:
        """Raises `ApiError`."""
        return await self._store.page(owner, query)

    async def cancel(self, owner: str, id: str) -> StoredBatch:
        """Have a batch end; what it has by then is published. Raises `ApiError`."""
        batch = await self._store.get(owner, id)
        if batch.status in ENDED and batch.status != "cancelled":
            message = f"This batch cannot be cancelled any more: it is {batch.status}."
            raise ApiError(400, "invalid_request_error", message, "batch_id")
        async with self._database.writing() as connection:
            await self._store.begin_cancelling(connection, id)
            await self._jobs.request_cancel(connection, id)
        self._jobs.wake()
        return await self._store.get(owner, id)

    def _folder(self, batch: StoredBatch) -> Path:
        return self._kind.folder(batch.id)


def _seconds(window: str) -> float:
    try:
        seconds = parse_duration(window)
    except ValueError:
        seconds = -1.0
    if not SHORTEST_WINDOW <= seconds <= LONGEST_WINDOW:
        raise bad_field("completion_window", "must be a time such as 24h, from 1m to 720h")
    return seconds
