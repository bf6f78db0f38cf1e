"""Jobs: run once, wherever they were left, by one of the servers that share a folder for state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.database import tables
from app.database.address import Address
from app.database.database import Database
from app.jobs import runner as runner_module
from app.jobs.claims import RunnerClaim, place_of
from app.jobs.job import Job, JobRun, JobState, WorkFailed
from app.jobs.runner import JobRunner
from app.jobs.store import JobStore


class Kind:
    """Work that waits until it may go on; ``error`` is what it ends with."""

    name = "work"
    at_once = 2

    def __init__(self, error: Exception | None = None) -> None:
        self.runs: list[JobRun] = []
        self.given_up: list[str] = []
        self.go_on = asyncio.Event()
        self.error = error

    async def run(self, run: JobRun) -> JobState:
        self.runs.append(run)
        waits = [asyncio.ensure_future(each.wait()) for each in (self.go_on, run.cancelled)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
        if self.error is not None:
            raise self.error
        return "cancelled" if run.cancelled.is_set() else "succeeded"

    async def give_up(self, job: Job, reason: str) -> None:
        self.given_up.append(reason)


class House:
    """A database, and servers that share it and its folder."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self.database = database
        self.place = place_of(folder)

    async def server(self, kind: Kind) -> JobRunner:
        runner = JobRunner(JobStore(self.database, self.place), RunnerClaim(self.folder / "servers"))
        runner.register(kind)
        await runner.start()
        return runner

    async def submit(self, runner: JobRunner, count: int = 1) -> list[str]:
        async with self.database.writing() as connection:
            jobs = [await runner.submit(connection, "work", "", {"n": n}) for n in range(count)]
        runner.wake()
        return [job.id for job in jobs]

    async def states(self) -> list[str]:
        async with self.database.reading() as connection:
            found = await connection.execute(sa.select(tables.jobs.c.state).order_by(tables.jobs.c.number))
            return list(found.scalars())


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setattr(runner_module, "LOOK_AGAIN", 0.01)
    monkeypatch.setattr(runner_module, "TRY_AGAIN", 0.01)
    database = Database(Address(tmp_path / "a.db"))
    yield House(tmp_path, database)
    await database.close()


async def until(is_so: object) -> None:
    assert callable(is_so)
    for _ in range(500):
        if await is_so() if asyncio.iscoroutinefunction(is_so) else is_so():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it took too long")


def killed(runner: JobRunner) -> None:
    """As if the process had died: nothing is written any more, and the kernel lets go of its lock."""
    runner._stopping = True
    assert runner._looking is not None
    runner._looking.cancel()
    for _, task in runner._runs.values():
        task.cancel()
    runner._claim.release()


async def test_some_run_at_once_in_their_order(house: House) -> None:
    kind = Kind()
    runner = await house.server(kind)
    ids = await house.submit(runner, 3)
    await until(lambda: len(kind.runs) == 2)
    assert [run.job.id for run in kind.runs] == ids[:2]
    kind.go_on.set()
    await until(lambda: len(kind.runs) == 3)
    await runner.stop()


async def test_a_job_goes_on_after_a_stop_and_after_a_kill(house: House) -> None:
    kind = Kind()
    runner = await house.server(kind)
    await house.submit(runner)
    await until(lambda: len(kind.runs) == 1)
    await runner.stop()
    assert await house.states() == ["queued"]
    second = await house.server(kind)
    await until(lambda: len(kind.runs) == 2)
    killed(second)
    assert await house.states() == ["running"]
    third = await house.server(kind)
    await until(lambda: len(kind.runs) == 3)
    assert [run.job.starts for run in kind.runs] == [0, 0, 1]
    kind.go_on.set()

    async def is_over() -> bool:
        return await house.states() == ["succeeded"]

    await until(is_over)
    await third.stop()


async def test_two_servers_of_one_folder_run_a_job_once(house: House) -> None:
    one, other = Kind(), Kind()
    first = await house.server(one)
    second = await house.server(other)
    await house.submit(first, 2)
    await house.submit(second, 2)
    await until(lambda: len(one.runs) + len(other.runs) == 4)
    await asyncio.sleep(0.05)
    ids = [run.job.id for run in (*one.runs, *other.runs)]
    assert len(set(ids)) == 4
    killed(first)
    left = len(one.runs)
    other.go_on.set()
    await until(lambda: len(other.runs) == 4)
    assert len(one.runs) == left
    await second.stop()


async def test_a_job_that_ends_the_server_again_and_again_is_given_up(house: House) -> None:
    kind = Kind()
    for _ in range(runner_module.MOST_STARTS):
        runner = await house.server(kind)
        if not kind.runs:
            await house.submit(runner)
        seen = len(kind.runs)
        await until(lambda seen=seen: len(kind.runs) > seen or kind.runs)
        await asyncio.sleep(0.03)
        killed(runner)
    last = await house.server(kind)
    await until(lambda: bool(kind.given_up))
    assert len(kind.runs) == runner_module.MOST_STARTS

    async def is_over() -> bool:
        return await house.states() == ["failed"]

    await until(is_over)
    await last.stop()


async def test_what_fails_for_good_fails_and_the_rest_is_tried_again(house: House) -> None:
    kind = Kind(OSError(28, "No space left on device"))
    kind.go_on.set()
    runner = await house.server(kind)
    await house.submit(runner)
    await until(lambda: len(kind.runs) > 2)
    kind.error = WorkFailed("it cannot be")

    async def is_over() -> bool:
        return await house.states() == ["failed"]

    await until(is_over)
    await runner.stop()


async def test_a_job_is_cancelled_by_whoever_runs_it(house: House) -> None:
    one, other = Kind(), Kind()
    first, second = await house.server(one), await house.server(other)
    (id,) = await house.submit(first)
    await until(lambda: bool(one.runs or other.runs))
    asks = second if one.runs else first
    async with house.database.writing() as connection:
        await asks.request_cancel(connection, id)

    async def is_over() -> bool:
        return await house.states() == ["cancelled"]

    await until(is_over)
    await first.stop()
    await second.stop()
