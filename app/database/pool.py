"""The connections to the database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.database.address import Address
from app.database.migrate import BUSY_TIMEOUT

# Readers; the one writer has another one.
_CONNECTIONS = 4


def make_engine(address: Address) -> AsyncEngine:
    """The engine for the database at ``address``. With the option ``immediate`` a connection of SQLite's
    takes the lock for writing when its transaction begins."""
    if address.file is None:
        return create_async_engine(address.async_url, pool_size=_CONNECTIONS, pool_pre_ping=True)
    engine = create_async_engine(
        address.async_url, pool_size=_CONNECTIONS + 1, max_overflow=0, connect_args={"timeout": BUSY_TIMEOUT}
    )
    event.listen(engine.sync_engine, "connect", _on_connect)
    event.listen(engine.sync_engine, "begin", _on_begin)
    return engine


def _on_connect(connection: Any, record: object) -> None:
    # Else the driver begins transactions by itself, and late.
    connection.isolation_level = None
    cursor = connection.cursor()
    # With a log of what is written (WAL), a crash of the machine costs the last commits, but breaks nothing.
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
