"""The database, as the rest of the server uses it: connections for reading and for writing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from app.database.address import Address
from app.database.errors import DatabaseUnavailable
from app.telemetry.logs import get_logger

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

log = get_logger("database")


class Database:
    """A database that is opened, and made or migrated, when it is first used.

    One that cannot be used raises `DatabaseUnavailable` from `open`, `reading` and `writing`, and is tried
    again the next time.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._engine: AsyncEngine | None = None
        self._opening = asyncio.Lock()
        self._one_writer = asyncio.Lock()

    @property
    def exists(self) -> bool:
        """Whether something may be kept there already: a file that is there, and any other server."""
        return self.address.file is None or self.address.file.exists()

    @property
    def is_open(self) -> bool:
        return self._engine is not None

    async def open(self) -> None:
        """Connect, and bring the tables up to date; does nothing if that is done."""
        await self._opened()

    async def close(self) -> None:
        """Let go of the connections; later use opens it again."""
        async with self._opening:
            engine, self._engine = self._engine, None
            if engine is not None:
                await engine.dispose()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A connection that sees the database as it is at the first statement. Nothing written is kept."""
        engine = await self._opened()
        with self._told():
            async with engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A connection in a transaction, which is committed at the end, or undone by an exception.

        One at a time, from its first statement on: a transaction that began to read before it wrote would
        fail at once if another had written meanwhile (``BEGIN IMMEDIATE``).
        """
        engine = await self._opened()
        async with self._one_writer:
            with self._told():
                async with engine.connect() as connection:
                    await connection.execution_options(immediate=True)
                    async with connection.begin():
                        yield connection

    async def _opened(self) -> AsyncEngine:
        if self._engine is not None:
            return self._engine
        async with self._opening:
            if self._engine is None:
                with self._told():
                    try:
                        # Imports, and a migration, take long enough for others to notice.
                        self._engine = await asyncio.to_thread(_open, self.address)
                    except (DatabaseUnavailable, OSError) as error:
                        raise self._unavailable(str(error)) from error
                log.info("database_open", at=str(self.address))
            return self._engine

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn SQLAlchemy's errors into `DatabaseUnavailable`, but for those that are the caller's fault."""
        try:
            yield
        except ModuleNotFoundError as error:
            if error.name != "psycopg":
                raise
            raise self._unavailable(
                "DATABASE_URL names PostgreSQL, whose driver is not installed: pip install 'psycopg[binary]'"
            ) from error
        except Exception as error:
            if not _is_outage(error):
                raise
            raise self._unavailable(_reason(error)) from error

    def _unavailable(self, reason: str) -> DatabaseUnavailable:
        return DatabaseUnavailable(f"The database ({self.address}) cannot be used: {reason}")


def _open(address: Address) -> AsyncEngine:
    from app.database.migrate import migrate
    from app.database.pool import make_engine

    migrate(address)
    return make_engine(address)


def _is_outage(error: Exception) -> bool:
    """Whether it is the database that failed, rather than the statement."""
    if not type(error).__module__.startswith("sqlalchemy."):
        return False
    from sqlalchemy import exc

    if isinstance(error, exc.IntegrityError | exc.ProgrammingError | exc.DataError):
        return False
    return isinstance(error, exc.DBAPIError | exc.TimeoutError)


def _reason(error: Exception) -> str:
    """What the driver says, with what can be done about it."""
    said = str(getattr(error, "orig", None) or error).strip()
    for part, advice in _ADVICE.items():
        if part in said:
            return f"{said}. {advice}"
    return said


_ADVICE = {
    "is locked": "Another program is writing to it for too long; try again.",
    "full": "Make room on its disk.",
    "not a database": "Move the file away, to begin with an empty one, or set STATE_DIR to another folder.",
    "malformed": "Restore the file from a backup, or move it away, to begin with an empty one.",
    "readonly": "The user that the server runs as must be able to write to the file and its folder.",
    "unable to open": "The user that the server runs as must be able to write to its folder: see STATE_DIR.",
}
