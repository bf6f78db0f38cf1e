"""Batch store: the table of batches."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.batches.batch import ENDED, BatchStatus, StoredBatch
from app.database.database import Database
from app.database.page_query import PageQuery
from app.database.paging import page
from app.database.tables import batches
from app.errors import ApiError

_FIELDS = tuple(each.name for each in fields(StoredBatch))


class BatchStore:
    """The batches of all owners, each of whom sees only theirs."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self.clock = clock

    async def add(self, connection: AsyncConnection, batch: StoredBatch) -> None:
        """Note a new batch, as a part of a transaction."""
        await connection.execute(sa.insert(batches).values(asdict(batch)))

    async def get(self, owner: str, id: str) -> StoredBatch:
        """Raises `ApiError` if ``owner`` has no such batch."""
        async with self._database.reading() as connection:
            return await self._get(connection, batches.c.id == id, batches.c.owner == owner, id=id)

    async def of_job(self, id: str) -> StoredBatch:
        """The batch ``id``, whoever owns it."""
        async with self._database.reading() as connection:
            return await self._get(connection, batches.c.id == id, id=id)

    async def page(self, owner: str, query: PageQuery) -> tuple[list[StoredBatch], bool]:
        """Some batches of ``owner``, the newest first, and whether there are more. Raises `ApiError`."""
        async with self._database.reading() as connection:
            rows, more = await page(connection, batches, query, batches.c.owner == owner)
        return [_batch(row) for row in rows], more

    async def count_unfinished(self, connection: AsyncConnection, owner: str) -> int:
        unfinished = batches.c.status.not_in(ENDED)
        wanted = sa.select(sa.func.count()).select_from(batches).where(batches.c.owner == owner, unfinished)
        return int((await connection.execute(wanted)).scalar_one())

    async def change(self, id: str, **values: Any) -> None:
        async with self._database.writing() as connection:
            await self.change_with(connection, id, **values)

    async def change_with(self, connection: AsyncConnection, id: str, **values: Any) -> None:
        """As `change`, as a part of a transaction."""
        await connection.execute(sa.update(batches).where(batches.c.id == id).values(**values))

    async def enter(self, id: str, status: BatchStatus, **values: Any) -> None:
        """Note that a batch is now in ``status``. One that is being cancelled remains so."""
        values |= {f"{status}_at": int(self.clock())}
        mine = sa.update(batches).where(batches.c.id == id)
        cancelling = batches.c.status == "cancelling"
        async with self._database.writing() as connection:
            await connection.execute(mine.where(sa.not_(cancelling)).values(status=status, **values))
            await connection.execute(mine.where(cancelling).values(**values))

    async def begin_cancelling(self, connection: AsyncConnection, id: str) -> None:
        """As a part of a transaction."""
        can_be = batches.c.status.in_(("validating", "in_progress"))
        changed = sa.update(batches).where(batches.c.id == id, can_be)
        await connection.execute(changed.values(status="cancelling", cancelling_at=int(self.clock())))

    async def _get(
        self, connection: AsyncConnection, *conditions: sa.ColumnElement[bool], id: str
    ) -> StoredBatch:
        row = (await connection.execute(sa.select(batches).where(*conditions))).mappings().first()
        if row is None:
            raise ApiError(404, "batch_not_found", f"There is no batch {id[:64]!r}.", "batch_id")
        return _batch(row)


def _batch(row: sa.RowMapping) -> StoredBatch:
    return StoredBatch(**{name: row[name] for name in _FIELDS})
