"""Kept pulls: those that a server was stopped with, or killed, go on when it starts again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from app.database.database import Database
from app.database.errors import DatabaseUnavailable
from app.jobs.job import Job, JobRun, JobState, WorkFailed
from app.jobs.runner import JobRunner
from app.operations.pulls import Pulls
from app.telemetry.logs import get_logger
from engines.errors import EngineError
from engines.lifecycle.errors import ModelConflict
from engines.models.pull.jobs import PullJob
from engines.models.pull.puller import PullError

log = get_logger("pulls")

# After its clients have left, it counts as cancelled so many seconds later. A server that stops sends all
# clients away, and is gone by then.
LEFT_AFTER = 1.0


class PullKind:
    """Goes on with pulls. Nobody has to watch one; it ends with DELETE /v1/models/{id}."""

    name = "pull"
    at_once = 2

    def __init__(self, pulls: Pulls) -> None:
        self._pulls = pulls

    async def run(self, run: JobRun) -> JobState:
        arguments = run.job.arguments
        try:
            pull = self._pulls.start(**{**arguments, "include": tuple(arguments["include"])}, is_kept=True)
        except ModelConflict:
            raise  # later it may not be in use
        except EngineError as error:
            raise WorkFailed(error.message) from error
        log.info("pull_goes_on", model=pull.name)
        watch = pull.watch()
        cancelled = asyncio.ensure_future(run.cancelled.wait())
        ended = asyncio.ensure_future(pull.wait())
        try:
            await asyncio.wait((cancelled, ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            watch.close()
            cancelled.cancel()
        await ended
        if isinstance(pull.failure, PullError) and pull.failure.retryable:
            raise pull.failure
        state, reason = outcome(pull)
        if reason is not None:
            raise WorkFailed(reason)
        return state

    async def give_up(self, job: Job, reason: str) -> None:
        log.warning("pull_given_up", arguments=dict(job.arguments), reason=reason)


async def note_pull(database: Database, jobs: JobRunner, pull: PullJob, arguments: Mapping[str, Any]) -> None:
    """Keep ``pull``, which clients of this server wait for, in the table of jobs until it ends."""
    try:
        async with database.writing() as connection:
            id = await jobs.note(connection, PullKind.name, "", arguments)
        await pull.wait()
        state, reason = outcome(pull)
        if state == "cancelled":
            await asyncio.sleep(LEFT_AFTER)
        await jobs.ended(id, state, reason)
    except DatabaseUnavailable as error:
        log.warning("pull_not_kept", model=pull.name, error=error.message)


def outcome(pull: PullJob) -> tuple[JobState, str | None]:
    """What became of a pull that has ended."""
    if pull.failure is None:
        return "succeeded", None
    if isinstance(pull.failure, asyncio.CancelledError):
        return "cancelled", None
    return "failed", str(pull.failure)
