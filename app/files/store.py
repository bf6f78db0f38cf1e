"""File store: files in a folder, and what is known of them in the database."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.database.database import Database
from app.database.page_query import PageQuery
from app.database.paging import page
from app.database.tables import files
from app.errors import ApiError
from app.files.stored import BATCH, StoredFile, new_file_id
from app.files.upload import Upload

# A part of an upload that is older, in seconds, belongs to nobody any more.
ABANDONED = 86400.0
_FIELDS = ("id", "owner", "purpose", "filename", "bytes", "created_at", "expires_at")


class FileStore:
    """The files of all owners, each of whom sees only theirs. ``most_bytes`` is what one may keep in all,
    ``retention`` how many seconds files for batches are kept that do not say it themselves."""

    def __init__(
        self,
        database: Database,
        folder: Path,
        *,
        most_bytes: int,
        retention: float | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._folder = folder
        self._most_bytes = most_bytes
        self._retention = retention
        self._clock = clock

    def path(self, file: StoredFile | str) -> Path:
        """Where the bytes of a file are."""
        return self._folder / (file if isinstance(file, str) else file.id)

    async def new_part(self) -> Path:
        """Where a file may be written before it is kept."""
        parts = self._folder / "parts"
        await asyncio.to_thread(parts.mkdir, parents=True, exist_ok=True, mode=0o700)
        return parts / new_file_id()

    async def check_room(self, owner: str, size: int) -> None:
        """Raises `ApiError` if ``owner`` may not keep ``size`` more bytes."""
        async with self._database.reading() as connection:
            await self._check_room(connection, owner, size)

    async def add(self, owner: str, purpose: str, upload: Upload, life: int | None = None) -> StoredFile:
        """Keep what was uploaded, for ``life`` seconds. Raises `ApiError`."""
        file = self._new(new_file_id(), owner, purpose, upload.filename or "", upload.size, life)
        await asyncio.to_thread(_move, upload.part, self.path(file))
        try:
            async with self._database.writing() as connection:
                await self._check_room(connection, owner, file.bytes)
                await connection.execute(sa.insert(files), _row(file))
        except BaseException:
            await asyncio.to_thread(self._remove, [file.id])
            raise
        return file

    async def adopt(
        self,
        connection: AsyncConnection,
        id: str,
        owner: str,
        purpose: str,
        filename: str,
        source: Path,
        life: int | None,
    ) -> StoredFile:
        """Keep what is at ``source`` as file ``id``, as a part of a transaction; done twice it is as once."""
        size = await asyncio.to_thread(link_file, source, self.path(id))
        file = self._new(id, owner, purpose, filename, size, life)
        known = await connection.execute(sa.select(files.c.id).where(files.c.id == id))
        if known.first() is None:
            await connection.execute(sa.insert(files), _row(file))
        return file

    async def get(self, owner: str, id: str) -> StoredFile:
        """Raises `ApiError` if ``owner`` has no such file."""
        async with self._database.reading() as connection:
            found = await connection.execute(sa.select(files).where(files.c.id == id, *self._seen_by(owner)))
            row = found.mappings().first()
        if row is None:
            raise _unknown(id)
        return _stored(row)

    async def page(
        self, owner: str, query: PageQuery, purpose: str | None = None
    ) -> tuple[list[StoredFile], bool]:
        """Some files of ``owner``, and whether there are more. Raises `ApiError`."""
        conditions = list(self._seen_by(owner))
        if purpose is not None:
            conditions.append(files.c.purpose == purpose)
        async with self._database.reading() as connection:
            rows, more = await page(connection, files, query, *conditions)
        return [_stored(row) for row in rows], more

    async def delete(self, owner: str, id: str) -> None:
        """Raises `ApiError` if ``owner`` has no such file."""
        async with self._database.writing() as connection:
            gone = await connection.execute(sa.delete(files).where(files.c.id == id, *self._seen_by(owner)))
        if not gone.rowcount:
            raise _unknown(id)
        await asyncio.to_thread(self._remove, [id])

    async def clean(self) -> None:
        """Remove files whose time is over, and parts of uploads that broke off."""
        async with self._database.writing() as connection:
            over = files.c.expires_at <= int(self._clock())
            ids = list((await connection.execute(sa.select(files.c.id).where(over))).scalars())
            if ids:
                await connection.execute(sa.delete(files).where(over))
        await asyncio.to_thread(self._remove, ids)
        await asyncio.to_thread(self._remove_parts)

    async def _check_room(self, connection: AsyncConnection, owner: str, size: int) -> None:
        kept = sa.select(sa.func.coalesce(sa.func.sum(files.c.bytes), 0)).where(*self._seen_by(owner))
        if int((await connection.execute(kept)).scalar_one()) + size > self._most_bytes:
            message = (
                f"Your files would take more than {self._most_bytes:,} bytes together: delete some first."
            )
            raise ApiError(413, "request_too_large", message)

    def _seen_by(self, owner: str) -> tuple[sa.ColumnElement[bool], ...]:
        alive = sa.or_(files.c.expires_at.is_(None), files.c.expires_at > int(self._clock()))
        return files.c.owner == owner, alive

    def _new(
        self, id: str, owner: str, purpose: str, filename: str, size: int, life: float | None
    ) -> StoredFile:
        if life is None and purpose.startswith(BATCH):
            life = self._retention
        now = int(self._clock())
        return StoredFile(id, owner, purpose, filename, size, now, None if life is None else now + int(life))

    def _remove(self, ids: Sequence[str]) -> None:
        for id in ids:
            self.path(id).unlink(missing_ok=True)

    def _remove_parts(self) -> None:
        with suppress(FileNotFoundError):
            for part in (self._folder / "parts").iterdir():
                if part.stat().st_mtime < time.time() - ABANDONED:
                    part.unlink(missing_ok=True)


def _row(file: StoredFile) -> dict[str, object]:
    return {name: getattr(file, name) for name in _FIELDS}


def _stored(row: sa.RowMapping) -> StoredFile:
    return StoredFile(**{name: row[name] for name in _FIELDS})


def _move(source: Path, target: Path) -> None:
    _sync(source)
    source.replace(target)


def link_file(source: Path, target: Path) -> int:
    """Have the file at ``target`` as well, without copying it where the disk can do without; its size."""
    if target.exists():
        return target.stat().st_size
    _sync(source)
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        os.link(source, target)
    except OSError:
        copy = target.with_name(f"{target.name}.copy")
        shutil.copyfile(source, copy)
        copy.replace(target)
    return target.stat().st_size


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unknown(id: str) -> ApiError:
    return ApiError(404, "file_not_found", f"There is no file {id[:64]!r}.", "file_id")
