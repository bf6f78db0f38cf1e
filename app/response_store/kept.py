"""Kept responses: those in the database, written beside the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Any

from app.database.database import Database
from app.database.errors import DatabaseUnavailable
from app.response_store.recent import Key
from app.response_store.record import StoredResponse
from app.telemetry.logs import get_logger

log = get_logger("responses")

# Seconds that a record waits for others to be written with; so much is lost by a crash.
DELAY = 0.25
# Records between two looks at what is too old or too many.
PRUNE_EVERY = 500


class KeptResponses:
    """At most ``count`` records that were used in the last ``age`` seconds.

    What waits to be written takes ``most`` bytes at most: beyond that the oldest of it is lost.
    """

    def __init__(
        self,
        database: Database,
        count: int,
        age: float,
        most: int,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._database = database
        self._count = count
        self._age = age
        self._most = most
        self._sleep = sleep
        self._waiting: dict[Key, StoredResponse] = {}
        self._bytes = 0
        self._lost = 0
        self._used: set[Key] = set()
        self._written = PRUNE_EVERY  # so that the first write looks
        self._one_writer = asyncio.Lock()
        self._writer: asyncio.Task[None] | None = None

    def put(self, record: StoredResponse, now: float) -> None:
        """Have ``record`` written, soon."""
        self._forget(record.key)
        self._waiting[record.key] = record
        self._bytes += record.size
        while self._bytes > self._most:
            self._forget(next(iter(self._waiting)))
            self._lost += 1
        self._write_soon(now)

    def use(self, key: Key, now: float) -> None:
        """Note that a record was used."""
        self._used.add(key)
        self._write_soon(now)

    async def get(self, key: Key, now: float) -> StoredResponse | None:
        """Raises `DatabaseUnavailable`."""
        waiting = self._waiting.get(key)
        if waiting is not None or not self._database.exists:
            return waiting
        import sqlalchemy as sa

        from app.database.tables import responses

        wanted = sa.select(responses).where(_is(responses, key), responses.c.used_at >= now - self._age)
        async with self._database.reading() as connection:
            row = (await connection.execute(wanted)).first()
        if row is None:
            return None
        return StoredResponse(row.owner, row.id, row.previous, bytes(row.input), bytes(row.response))

    async def delete(self, key: Key) -> bool:
        """Whether there was such a record. Raises `DatabaseUnavailable`."""
        async with self._one_writer:
            was_waiting = self._forget(key)
            if not self._database.exists:
                return was_waiting
            from app.database.tables import responses

            async with self._database.writing() as connection:
                result = await connection.execute(responses.delete().where(_is(responses, key)))
        return was_waiting or bool(result.rowcount)

    async def close(self, now: float) -> None:
        """Write what waits."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        await self._write_all(now)

    def _forget(self, key: Key) -> bool:
        found = self._waiting.pop(key, None)
        if found is not None:
            self._bytes -= found.size
        return found is not None

    def _write_soon(self, now: float) -> None:
        if self._writer is None:
            # It is no part of the request that it begins in, as the log would have it.
            loop, own = asyncio.get_running_loop(), Context()
            self._writer = loop.create_task(self._write_later(now), context=own)

    async def _write_later(self, now: float) -> None:
        await self._sleep(DELAY)
        try:
            await self._write_all(now)
        finally:
            self._writer = None
        if self._waiting:
            self._write_soon(now)

    async def _write_all(self, now: float) -> None:
        async with self._one_writer:
            records, used = [*self._waiting.values()], [*self._used]
            self._used.clear()
            if self._lost:
                log.error("responses_not_stored", reason="the database is too slow", count=self._lost)
                self._lost = 0
            if not records and not (used and self._database.exists):
                return
            try:
                await self._write(records, used, now)
            except DatabaseUnavailable as error:
                log.error("responses_not_stored", reason=error.message, count=len(records))
            for record in records:
                if self._waiting.get(record.key) is record:
                    self._forget(record.key)

    async def _write(self, records: Sequence[StoredResponse], used: Sequence[Key], now: float) -> None:
        import sqlalchemy as sa

        from app.database.tables import responses

        at = int(now)
        this = (responses.c.owner == sa.bindparam("of"), responses.c.id == sa.bindparam("named"))
        async with self._database.writing() as connection:
            if records:
                gone = [{"of": record.owner, "named": record.id} for record in records]
                await connection.execute(responses.delete().where(*this), gone)
                await connection.execute(responses.insert(), [_row(record, at) for record in records])
            if used:
                keys = [{"of": owner, "named": id} for owner, id in used]
                await connection.execute(responses.update().where(*this).values(used_at=at), keys)
            self._written += len(records)
            if self._written >= PRUNE_EVERY:
                self._written = 0
                await self._prune(connection, at)

    async def _prune(self, connection: Any, now: int) -> None:
        import sqlalchemy as sa

        from app.database.tables import responses

        await connection.execute(responses.delete().where(responses.c.used_at < now - self._age))
        oldest = sa.select(responses.c.number).order_by(responses.c.number.desc()).offset(self._count)
        newest = (await connection.execute(oldest.limit(1))).scalar()
        if newest is not None:
            await connection.execute(responses.delete().where(responses.c.number <= newest))


def _is(table: Any, key: Key) -> Any:
    owner, id = key
    return (table.c.owner == owner) & (table.c.id == id)


def _row(record: StoredResponse, now: int) -> dict[str, Any]:
    return {
        "owner": record.owner,
        "id": record.id,
        "previous": record.previous,
        "input": record.input,
        "response": record.response,
        "used_at": now,
    }
