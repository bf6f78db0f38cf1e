"""Job runner: starts jobs, takes up those that a restart left, and ends those that are cancelled."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncConnection

from app.database.errors import DatabaseUnavailable
from app.jobs.claims import RunnerClaim
from app.jobs.job import Job, JobKind, JobRun, JobState, WorkFailed
from app.jobs.store import JobStore
from app.telemetry.logs import get_logger

log = get_logger("jobs")

# How often, in seconds, the table is looked at: other servers may have written to it, or died.
LOOK_AGAIN = 5.0
# Seconds until a job goes on that could not, such as for a full disk.
TRY_AGAIN = 30.0
# A job with which the server died so often, without getting any further, is not tried again.
MOST_STARTS = 4


class JobRunner:
    """Runs the jobs of this place whose kind it knows, each in one server at a time."""

    def __init__(self, store: JobStore, claim: RunnerClaim) -> None:
        self._store = store
        self._claim = claim
        self._kinds: dict[str, JobKind] = {}
        self._runs: dict[str, tuple[JobRun, asyncio.Task[None]]] = {}
        self._elsewhere: set[str] = set()
        self._look_now = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._paused: dict[str, float] = {}
        self._stopping = False

    def register(self, kind: JobKind) -> None:
        self._kinds[kind.name] = kind

    async def start(self) -> None:
        await asyncio.to_thread(self._claim.take)
        self._looking = asyncio.create_task(self._keep_looking())

    async def stop(self) -> None:
        """Interrupt what runs; the next server goes on with it."""
        self._stopping = True
        if self._looking is not None:
            self._looking.cancel()
        runs = [task for _, task in self._runs.values()]
        ids = [*self._runs, *self._elsewhere]
        for task in runs:
            task.cancel()
        await asyncio.gather(*runs, return_exceptions=True)
        with suppress(DatabaseUnavailable):
            if ids:
                await self._store.release(ids)
        self._claim.release()

    async def submit(
        self, connection: AsyncConnection, kind: str, owner: str, arguments: Mapping[str, Any], id: str = ""
    ) -> Job:
        """Note a new job, as a part of a transaction. `wake` begins it once that is done."""
        job = Job(id or f"job_{uuid4().hex}", kind, owner, "queued", arguments)
        await self._store.add(connection, job)
        return job

    async def request_cancel(self, connection: AsyncConnection, id: str) -> None:
        """Have the job ``id`` end, as a part of a transaction; `wake` tells it once that is done."""
        await self._store.request_cancel(connection, id)

    def wake(self) -> None:
        """Look at the table at once."""
        self._look_now.set()

    async def note(
        self, connection: AsyncConnection, kind: str, owner: str, arguments: Mapping[str, Any]
    ) -> str:
        """Note a job that somebody else runs in this server; returns its id. If the server dies with it, the
        next one runs it as any other. `ended` says what became of it."""
        id = f"job_{uuid4().hex}"
        self._elsewhere.add(id)
        await self._store.add(connection, Job(id, kind, owner, "running", arguments, runner=self._claim.name))
        return id

    async def ended(self, id: str, state: JobState, error: str | None = None) -> None:
        """Note what became of a job of `note`, unless the server stops: then the next one goes on with it."""
        if not self._stopping:
            self._elsewhere.discard(id)
            await self._store.end(id, state, error)

    async def _keep_looking(self) -> None:
        while True:
            self._look_now.clear()
            try:
                await self._look()
            except DatabaseUnavailable as error:
                log.warning("jobs_unknown", error=error.message)
            except Exception:
                log.exception("jobs_unknown")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._look_now.wait(), LOOK_AGAIN)

    async def _look(self) -> None:
        """Start what waits, and tell what runs that it is to end."""
        running = Counter(run.job.kind for run, _ in self._runs.values())
        for job in await self._store.unfinished():
            if (mine := self._runs.get(job.id)) is not None:
                if job.cancel_requested:
                    mine[0].cancelled.set()
                continue
            kind = self._kinds.get(job.kind)
            if kind is None or job.id in self._elsewhere or self._is_paused(job):
                continue
            # What is to be cancelled has little to do.
            if running[job.kind] >= kind.at_once and not job.cancel_requested:
                continue
            if await self._take(job, kind):
                running[job.kind] += 1

    async def _take(self, job: Job, kind: JobKind) -> bool:
        """Start ``job`` if no other server runs it."""
        before = job.runner
        if before not in (None, self._claim.name) and await asyncio.to_thread(self._claim.is_alive, before):
            return False
        died = before not in (None, self._claim.name)
        if not await self._store.claim(job, self._claim.name, died=died):
            return False
        if died:
            job.starts += 1
            log.info("job_goes_on", job=job.id, kind=job.kind, starts=job.starts)

        async def save_progress(progress: Mapping[str, Any]) -> None:
            job.starts = 0
            await self._store.save_progress(job.id, progress)

        run = JobRun(job, save_progress)
        if job.cancel_requested:
            run.cancelled.set()
        self._runs[job.id] = run, asyncio.create_task(self._run(run, kind))
        return True

    async def _run(self, run: JobRun, kind: JobKind) -> None:
        job = run.job
        state: JobState
        try:
            if job.starts >= MOST_STARTS:
                reason = f"the server ended {job.starts} times while it worked on this, and got no further"
                await kind.give_up(job, reason)
                state, error = "failed", reason
            else:
                state, error = await kind.run(run), None
            await self._store.end(job.id, state, error)
            log.info("job_ended", job=job.id, kind=job.kind, state=state)
        except WorkFailed as failure:
            with suppress(DatabaseUnavailable):
                await self._store.end(job.id, "failed", str(failure))
            log.warning("job_failed", job=job.id, kind=job.kind, error=str(failure))
        except Exception as failure:
            self._paused[job.id] = asyncio.get_running_loop().time() + TRY_AGAIN
            if isinstance(failure, DatabaseUnavailable | OSError):
                log.warning("job_interrupted", job=job.id, kind=job.kind, error=str(failure))
            else:
                log.exception("job_interrupted", job=job.id, kind=job.kind)
        finally:
            self._runs.pop(job.id, None)
            self.wake()

    def _is_paused(self, job: Job) -> bool:
        until = self._paused.get(job.id)
        if until is None or job.cancel_requested or until <= asyncio.get_running_loop().time():
            self._paused.pop(job.id, None)
            return False
        return True
