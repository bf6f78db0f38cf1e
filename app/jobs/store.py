"""Job store: the table of jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.database.database import Database
from app.database.tables import jobs
from app.jobs.job import UNFINISHED, Job, JobState

# Seconds that jobs which ended are kept, for people to look at.
KEPT = 30 * 86400

_FIELDS = (
    "id",
    "kind",
    "owner",
    "state",
    "arguments",
    "progress",
    "cancel_requested",
    "runner",
    "starts",
)


class JobStore:
    """The jobs of ``place``, which is a folder for state: what they work on is there, and nowhere else."""

    def __init__(self, database: Database, place: str, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._place = place
        self._clock = clock

    async def add(self, connection: AsyncConnection, job: Job) -> None:
        """Note a new job, as a part of a transaction."""
        values = {name: getattr(job, name) for name in _FIELDS}
        await connection.execute(
            sa.insert(jobs).values(**values, place=self._place, created_at=int(self._clock()))
        )

    async def unfinished(self) -> list[Job]:
        """In the order in which they came."""
        wanted = sa.select(jobs).where(jobs.c.place == self._place, jobs.c.state.in_(UNFINISHED))
        async with self._database.reading() as connection:
            rows = (await connection.execute(wanted.order_by(jobs.c.number))).mappings().all()
        return [_job(row) for row in rows]

    async def claim(self, job: Job, runner: str, *, died: bool) -> bool:
        """Make ``runner`` the one that runs ``job``, unless another one was quicker. ``died``: the one that
        ran it before did."""
        unchanged = jobs.c.runner.is_(None) if job.runner is None else jobs.c.runner == job.runner
        mine = (
            sa.update(jobs)
            .where(jobs.c.id == job.id, jobs.c.state.in_(UNFINISHED), unchanged)
            .values(
                runner=runner,
                state="running",
                starts=jobs.c.starts + (1 if died else 0),
                started_at=sa.func.coalesce(jobs.c.started_at, int(self._clock())),
            )
        )
        async with self._database.writing() as connection:
            return bool((await connection.execute(mine)).rowcount)

    async def release(self, ids: Sequence[str]) -> None:
        """Let others run the jobs that were running here: this server stops."""
        freed = sa.update(jobs).where(jobs.c.id.in_(ids), jobs.c.state.in_(UNFINISHED))
        async with self._database.writing() as connection:
            await connection.execute(freed.values(runner=None, state="queued"))

    async def save_progress(self, id: str, progress: Mapping[str, Any]) -> None:
        async with self._database.writing() as connection:
            changed = sa.update(jobs).where(jobs.c.id == id)
            await connection.execute(changed.values(progress=dict(progress), starts=0))

    async def request_cancel(self, connection: AsyncConnection, id: str) -> None:
        """Note that ``id`` is to end, as a part of a transaction."""
        await connection.execute(sa.update(jobs).where(jobs.c.id == id).values(cancel_requested=True))

    async def end(self, id: str, state: JobState, error: str | None = None) -> None:
        async with self._database.writing() as connection:
            await connection.execute(
                sa.update(jobs)
                .where(jobs.c.id == id)
                .values(state=state, error=error, ended_at=int(self._clock()), runner=None)
            )

    async def clean(self) -> None:
        """Forget what ended long ago."""
        old = sa.delete(jobs).where(jobs.c.ended_at < int(self._clock()) - KEPT)
        async with self._database.writing() as connection:
            await connection.execute(old)


def _job(row: sa.RowMapping) -> Job:
    values: dict[str, Any] = {name: row[name] for name in _FIELDS}
    return Job(**values)
