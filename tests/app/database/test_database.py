"""The database: opened when used, safe to share, and told of when it cannot be used."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from app.database import tables
from app.database.address import Address, read_address
from app.database.database import Database
from app.database.errors import DatabaseUnavailable
from support.source import ROOT


@asynccontextmanager
async def opened(file: Path) -> AsyncIterator[Database]:
    database = Database(Address(file))
    try:
        yield database
    finally:
        await database.close()


def row(id: str, **values: Any) -> dict[str, Any]:
    own = {"owner": "", "purpose": "batch", "filename": "a.jsonl", "bytes": 1, "created_at": 0}
    return {"id": id, **own, **values}


async def ids(database: Database) -> list[str]:
    async with database.reading() as connection:
        found = await connection.execute(sa.select(tables.files.c.id).order_by(tables.files.c.number))
        return list(found.scalars())


async def test_nothing_is_written_before_it_is_used_and_what_is_kept_stays(tmp_path: Path) -> None:
    file = tmp_path / "state" / "a.db"
    async with opened(file) as database:
        assert not database.exists
        assert not file.parent.exists()
        async with database.writing() as connection:
            await connection.execute(sa.insert(tables.files), [row("one"), row("two")])

        async def fail() -> None:
            async with database.writing() as connection:
                await connection.execute(sa.insert(tables.files), [row("three")])
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        assert file.stat().st_mode & 0o077 == 0
        async with database.reading() as connection:
            assert (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar() == "wal"
    async with opened(file) as database:
        assert database.exists
        assert await ids(database) == ["one", "two"]


async def test_the_migrations_make_the_tables(tmp_path: Path) -> None:
    def differences(connection: sa.Connection) -> list[Any]:
        from alembic.autogenerate import compare_metadata
        from alembic.migration import MigrationContext

        return list(compare_metadata(MigrationContext.configure(connection), tables.metadata))

    async with opened(tmp_path / "a.db") as database, database.reading() as connection:
        assert await connection.run_sync(differences) == []


async def test_writers_of_several_servers_wait_for_each_other(tmp_path: Path) -> None:
    """Each reads before it writes, which a transaction that did not take the lock at once would fail with."""
    file = tmp_path / "a.db"

    async def count_up(database: Database) -> None:
        async with database.writing() as connection:
            seen = (await connection.execute(sa.select(sa.func.count()).select_from(tables.files))).scalar()
            await connection.execute(sa.insert(tables.files), [row(f"file-{seen}")])

    async with opened(file) as one, opened(file) as other:
        await asyncio.gather(*(count_up(each) for each in [one, other] * 10))
        assert len(await ids(one)) == 20
        with pytest.raises(IntegrityError):
            async with one.writing() as connection:
                await connection.execute(sa.insert(tables.files), [row("file-1")])


async def test_a_write_that_is_cancelled_leaves_the_database_usable(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as database:

        async def write(held: asyncio.Event) -> None:
            async with database.writing() as connection:
                await connection.execute(sa.insert(tables.files), [row("lost")])
                held.set()
                await asyncio.Event().wait()

        for _ in range(8):  # more than there are connections
            held = asyncio.Event()
            task = asyncio.create_task(write(held))
            await held.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        async with database.writing() as connection:
            await connection.execute(sa.insert(tables.files), [row("kept")])
        assert await ids(database) == ["kept"]


def _broken(file: Path) -> None:
    file.write_bytes(b"this is no database" * 100)


def _newer(file: Path) -> None:
    import sqlite3

    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('9999')")
    connection.close()


def _folder(file: Path) -> None:
    file.mkdir()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [(_broken, "Move the file away"), (_newer, "newer version"), (_folder, "STATE_DIR")],
)
async def test_what_is_wrong_is_told_and_tried_again(tmp_path: Path, spoil: Any, says: str) -> None:
    file = tmp_path / "a.db"
    spoil(file)
    async with opened(file) as database:
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable, match=says):
                await database.open()
        file.rmdir() if file.is_dir() else file.unlink()
        await database.open()


async def test_a_full_disk_is_told(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as database:

        async def write() -> None:
            async with database.writing() as connection:
                await connection.exec_driver_sql("PRAGMA max_page_count = 1")
                await connection.execute(sa.insert(tables.files), [row("a", filename="a" * 200_000)])

        with pytest.raises(DatabaseUnavailable, match="Make room"):
            await write()


async def test_postgres_without_its_driver(tmp_path: Path) -> None:
    address = read_address("postgres://someone:hidden@db.example/house", tmp_path)
    with pytest.raises(DatabaseUnavailable, match="psycopg") as caught:
        await Database(address).open()
    assert "hidden" not in caught.value.message


@pytest.mark.parametrize(
    ("url", "file"),
    [("", "enginehouse.db"), ("sqlite:////srv/a.db", "/srv/a.db"), ("sqlite:///a.db", "a.db")],
)
def test_addresses(url: str, file: str, tmp_path: Path) -> None:
    assert read_address(url, tmp_path).file == (tmp_path / file if not url else Path(file))


@pytest.mark.parametrize("url", ["mysql://a/b", "a.db", "sqlite://", "sqlite:///:memory:"])
def test_other_addresses_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be"):
        read_address(url, tmp_path)


def test_the_server_starts_without_sqlalchemy() -> None:
    code = (
        "import sys; import app.main; app.main.create_app(app.main.Settings(inference_engine='fake')); "
        "bad = {'sqlalchemy', 'alembic', 'aiosqlite'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
