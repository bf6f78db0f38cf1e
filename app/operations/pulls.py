"""Pulls that clients ask for: checked before anything is downloaded, and told of as changes of a model."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from app.pull_requests import Usefulness, named_pull
from engines.lifecycle.errors import ModelConflict
from engines.lifecycle.manager import ModelManager
from engines.lifecycle.states import ModelEvent, ModelState
from engines.models.library import Library
from engines.models.pull.jobs import PullJob, PullJobs
from engines.models.pull.puller import Puller, SourceName

# A pull that takes so many seconds goes on after a restart: most errors come before.
KEPT_AFTER = 1.0


class Pulls:
    """Begins pulls. ``useful`` is what could be served here; ``on_end`` is called when one has ended, and
    ``keep`` with each that begins and the arguments that would begin it again."""

    def __init__(
        self,
        library: Library,
        manager: ModelManager,
        useful: Usefulness,
        on_end: Callable[[], None],
        keep: Callable[[PullJob, Mapping[str, Any]], None],
    ) -> None:
        self._library = library
        self._manager = manager
        self._useful = useful
        self._on_end = on_end
        self._keep = keep
        self._jobs = PullJobs(Puller(), on_change=self._changed)

    def running(self, name: str) -> PullJob | None:
        """The pull of the model ``name``, if there is one now."""
        return self._jobs.running(name)

    def start(
        self,
        name: str,
        source: SourceName | None = None,
        revision: str | None = None,
        include: tuple[str, ...] = (),
        *,
        force: bool = False,
        is_kept: bool = False,
    ) -> PullJob:
        """Start or join the download of a catalog model, or of what a hub has. It ends with `PullRefused` for
        what could not be served here, unless forced. ``is_kept``: it goes on after a restart already.

        Raises `ModelFileNotFound` if ``name`` is neither, and `ModelConflict` if the model is in use.
        """
        useful = None if force else self._useful
        wanted = named_pull(self._library, name, source, revision, include, only_for=useful)
        model = wanted.model
        if model is not None and self._manager.status(model.name).inflight:
            raise ModelConflict(f"model {model.name} is in use: unload it before it is pulled again")
        running = self.running(wanted.name)
        if running is not None and running.request != wanted.request:
            raise ModelConflict(f"other files of {wanted.name} are being pulled: wait until they are here")
        job = self._jobs.start(wanted.name, wanted.request)
        if running is None and not is_kept:
            arguments = {"name": name, "source": source, "revision": revision, "include": list(include)}
            self._keep(job, {**arguments, "force": force})
        return job

    async def stop(self) -> None:
        await self._jobs.stop()

    def _changed(self, job: PullJob) -> None:
        if job.ended:
            self._on_end()
        state = ModelState.STOPPED if job.failure is None else ModelState.ABSENT
        before, after = ModelState.ABSENT, ModelState.DOWNLOADING
        if job.ended:
            before, after = ModelState.DOWNLOADING, state
        detail = getattr(job.failure, "message", "") if job.failure else ""
        self._manager.events.publish(ModelEvent(job.name, before, after, time.time(), detail))
