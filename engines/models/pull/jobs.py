"""Pulls that run now: one for each target, however many watch it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from engines.models.pull.puller import PulledModel, Puller, PullProgress, PullRequest


class PullJob:
    """A running or ended pull. It is cancelled when the last of its watchers leaves."""

    def __init__(self, name: str, puller: Puller, request: PullRequest) -> None:
        self.name = name
        self.request = request
        self.progress = PullProgress("resolving")
        self._watchers = 0
        self._moved = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(puller.pull(request, self._note))
        self._task.add_done_callback(lambda _: self._moved.set())

    @property
    def ended(self) -> bool:
        return self._task.done()

    @property
    def failure(self) -> BaseException | None:
        """Why the pull ended without a model; None until then."""
        if not self._task.done():
            return None
        return asyncio.CancelledError() if self._task.cancelled() else self._task.exception()

    def on_end(self, callback: Callable[[PullJob], None]) -> None:
        self._task.add_done_callback(lambda _: callback(self))

    def watch(self) -> PullWatch:
        self._watchers += 1
        return PullWatch(self)

    def leave(self) -> None:
        self._watchers -= 1
        if not self._watchers:
            self.cancel()

    def cancel(self) -> None:
        """Stop the pull; what arrived is kept for the next one."""
        self._task.cancel()

    async def moved(self) -> None:
        """Wait for more progress, or the end."""
        await self._moved.wait()
        if not self.ended:
            self._moved.clear()

    async def wait(self) -> None:
        """Wait for the end, whatever it is. Cancelling the wait does not cancel the pull."""
        await asyncio.wait((self._task,))

    async def result(self) -> PulledModel:
        """What was pulled. Raises `PullError`. Cancelling the wait does not cancel the pull."""
        return await asyncio.shield(self._task)

    def _note(self, progress: PullProgress) -> None:
        self.progress = progress
        self._moved.set()


class PullWatch:
    """Progress of a job as it comes, the latest only; ends with the job. ``close`` is synchronous."""

    def __init__(self, job: PullJob) -> None:
        self.job = job
        self._seen: PullProgress | None = None
        self._open = True

    def __aiter__(self) -> PullWatch:
        return self

    async def __anext__(self) -> PullProgress:
        while self.job.progress is self._seen:
            if self.job.ended:
                raise StopAsyncIteration
            await self.job.moved()
        self._seen = self.job.progress
        return self._seen

    def close(self) -> None:
        if self._open:
            self._open = False
            self.job.leave()


class PullJobs:
    """Owns the running pulls, by model name.

    ``on_change`` is told of each that begins or has ended.
    """

    def __init__(self, puller: Puller, on_change: Callable[[PullJob], None] = lambda job: None) -> None:
        self._puller = puller
        self._on_change = on_change
        self._jobs: dict[str, PullJob] = {}

    def running(self, name: str) -> PullJob | None:
        return self._jobs.get(name)

    def names(self) -> list[str]:
        return list(self._jobs)

    def start(self, name: str, request: PullRequest) -> PullJob:
        """The job that pulls ``name``: the one that runs, or a new one."""
        job = self._jobs.get(name)
        if job is None:
            job = self._jobs[name] = PullJob(name, self._puller, request)
            job.on_end(self._ended)
            self._on_change(job)
        return job

    async def stop(self) -> None:
        """Cancel all."""
        jobs = list(self._jobs.values())
        for job in jobs:
            job.cancel()
        await asyncio.gather(*(job.result() for job in jobs), return_exceptions=True)

    def _ended(self, job: PullJob) -> None:
        del self._jobs[job.name]
        self._on_change(job)
