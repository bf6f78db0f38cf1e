"""The composition root: what the server is made of, and how it starts and stops."""

from __future__ import annotations

import asyncio
import logging
import time

from app.cluster import Cluster
from app.configuration import (
    WorkerModel,
    first_model,
    manager_limits,
    media_loader,
    model_loader,
    open_library,
    worker_library_model,
)
from app.database.database import Database
from app.database.errors import DatabaseUnavailable
from app.inference.grants import Grants
from app.inference.ignored import IgnoredFields
from app.inference.outcome import RequestRecord, Sink
from app.inference.pipeline import Pipeline
from app.inference.targets import Targets
from app.operations.loads import Loads
from app.pull_requests import named_pull, usefulness
from app.schemas.models import ModelReport
from app.settings import Settings
from app.telemetry.cluster import ClusterCollector
from app.telemetry.load_log import LoadLog
from app.telemetry.metrics import Metrics
from app.telemetry.models import ModelCollector
from app.telemetry.request_log import RequestLog
from balancer.balancer import Balancer
from balancer.call import Target
from balancer.dispatch import Failovers
from balancer.fleet import Fleet
from engines import selection
from engines.lifecycle.errors import ModelConflict
from engines.lifecycle.loader import engine_for
from engines.lifecycle.manager import ModelManager
from engines.lifecycle.states import ModelEvent, ModelState
from engines.machine import malloc, memory
from engines.machine.background import BackgroundTasks
from engines.models import store
from engines.models.catalog import CatalogError
from engines.models.facts import peek
from engines.models.library import Reading
from engines.models.model import Model
from engines.models.pull.jobs import PullJob, PullJobs
from engines.models.pull.puller import Puller, SourceName

logger = logging.getLogger("server")

# The catalog and the model folder are looked at every so many seconds.
RELOAD_SECONDS = 2.0
# How old the figure of GPU memory in a log line may be.
GPU_MEMORY_SECONDS = 2.0


class Server:
    """Owns the models, the balancer in front of them, and the counts. One for each app."""

    def __init__(self, settings: Settings, worker_model: WorkerModel | None = None) -> None:
        self.settings = settings
        self.worker_model = worker_model
        self.started_at = time.monotonic()
        self.created = int(time.time())
        self.library = open_library(settings)
        if worker_model is None:
            self.default = first_model(self.library, settings)
        else:
            self.default = worker_library_model(self.library, settings, worker_model)
        facts = selection.detect()
        loader = model_loader(self.library, settings, facts)
        self.cluster = Cluster(
            settings,
            self.library,
            loader,
            manager_limits(settings, facts),
            is_worker=worker_model is not None,
        )
        self.pulls = PullJobs(Puller(), on_change=self._pull_changed)
        self.metrics = Metrics(self.balancer.statuses, lambda: self.balancer.queue_depth)
        self.metrics.registry.register(ModelCollector(self.manager))
        self.metrics.registry.register(
            ClusterCollector(self.balancer.statuses, self.failovers, self.cluster.scaling)
        )
        self.loads = Loads(self.fleet, self.manager, loader, settings.queue_timeout)
        self.abilities = loader.abilities
        self.targets = Targets(self.library, lambda: self.fleet.upstreams, loader.can_chat, loader.abilities)
        self._log = RequestLog(lambda: self._gpu_memory)
        self.media = media_loader(settings)
        self.pipeline = Pipeline(
            self.balancer,
            self.failovers,
            self._record,
            self.media,
            self.targets.check_senses,
            is_worker=self.is_worker,
        )
        self.grants = Grants(settings.user_keep_alive, settings.user_priority)
        self.ignored = IgnoredFields()
        self.large_bodies = asyncio.Lock()
        self.database = Database(settings.database)  # a worker keeps nothing there
        self._useful = usefulness(facts, settings.inference_engine, self.manager.limits.budget)
        self._facts = facts
        self._gpu_memory = 0
        self._background = BackgroundTasks()

    @property
    def is_worker(self) -> bool:
        """Whether another server started this one, for one model, and balances over it."""
        return self.worker_model is not None

    @property
    def manager(self) -> ModelManager:
        return self.cluster.manager

    @property
    def balancer(self) -> Balancer:
        return self.cluster.balancer

    @property
    def fleet(self) -> Fleet:
        return self.cluster.fleet

    @property
    def failovers(self) -> Failovers:
        return self.cluster.failovers

    async def start(self) -> None:
        """Begin to load what is to be there from the start; requests wait for it meanwhile."""
        malloc.keep_little_memory()
        self.cluster.start()
        self.fleet.ensure(self.default.name)
        if self.worker_model is not None:
            self.manager.want(self.default.name, self.worker_model.options)
            return
        self.manager.want(self.default.name)
        for model in self.library.models():
            if model.entry.preload and not model.is_absent:
                self.fleet.ensure(model.name)
                self.manager.want(model.name, modest=True)
        self._background.start(self._keep_reloading())
        if self.database.exists:
            self._background.start(self._open_database())
        loads = LoadLog(self.settings, self.default.name, self.manager.statuses, self.manager.events)
        self._background.start(loads.keep_telling())
        self._background.start(loads.tell_when_ready())
        if self._facts.cuda:
            self._background.start(self._keep_gpu_memory())

    async def stop(self) -> None:
        self._background.cancel()
        await self.pulls.stop()
        self.media.close()
        await self.cluster.stop()
        await self.database.close()

    async def _open_database(self) -> None:
        try:
            await self.database.open()
        except DatabaseUnavailable as error:
            logger.error("%s", error.message)

    def idle_gpu(self) -> str:
        """That the engine of the default model leaves a GPU of this machine idle; empty if it does not."""
        if self.is_worker or self.settings.device_type == "cpu":
            return ""
        choice = engine_for(self.default, self.settings.inference_engine, self._facts)
        return selection.idle_gpu(self._facts, choice.engine or "")

    def is_elsewhere(self, name: str) -> bool:
        """Whether upstreams have the model ``name``, and this server knows of no such model."""
        return self.targets.foreign(name) is not None

    async def find(self, name: str, path: str | None = None) -> Model:
        """The model of this name, to be loaded; ``path`` makes a new one of what lies there.

        Raises `ModelFileNotFound`, and for ``path`` also `PathNotAllowed`, `ModelLoadError`, `RequestError`.
        """
        if path is None:
            return self.library.on_disk(name)
        # Its header is read beside the event loop; what is wrong with the path is told below.
        await asyncio.to_thread(peek, store.inside(self.library.base, path))
        return self.library.add_path(name, path)

    def _record(self, target: Target, endpoint: str, request_id: str) -> RequestRecord:
        # A worker's requests are logged by its parent.
        sinks: list[Sink] = [self.metrics, *(() if self.is_worker else (self._log.of_this_request(),))]
        return RequestRecord(
            target, endpoint, request_id, live=self.metrics.for_model(target.model), sinks=sinks
        )

    def report(self, model: Model) -> ModelReport:
        """What clients are told of a model."""
        status = self.manager.status(model.name)
        pull, abilities = self.pulls.running(model.name), self.abilities(model)
        return ModelReport.of(model, status, pull, self.created, abilities)

    async def unload(self, model: Model, *, force: bool) -> None:
        """Stop pulling ``model``, or unload it. Raises `ModelConflict` for a pinned one."""
        job = self.pulls.running(model.name)
        if job is not None:
            job.cancel()
        await self.fleet.unload(model.name, force=force)

    def pull(
        self,
        name: str,
        source: SourceName | None,
        revision: str | None,
        include: tuple[str, ...],
        *,
        force: bool = False,
    ) -> PullJob:
        """Start or join the download of a catalog model, or of what a hub has. It ends with `PullRefused` for
        what could not be served here, unless forced.

        Raises `ModelFileNotFound` if ``name`` is neither, and `ModelConflict` if the model is in use.
        """
        useful = None if force else self._useful
        wanted = named_pull(self.library, name, source, revision, include, only_for=useful)
        model = wanted.model
        if model is not None and self.manager.status(model.name).inflight:
            raise ModelConflict(f"model {model.name} is in use: unload it before it is pulled again")
        running = self.pulls.running(wanted.name)
        if running is not None and running.request != wanted.request:
            raise ModelConflict(f"other files of {wanted.name} are being pulled: wait until they are here")
        return self.pulls.start(wanted.name, wanted.request)

    def reload(self) -> None:
        """Take up what changed in the catalog and the model folder."""
        self._take_up(self.library.read())

    def _take_up(self, reading: Reading) -> None:
        try:
            changes = self.library.adopt(reading)
        except CatalogError as error:
            logger.error("the catalog is left as it was: %s", error)
            return
        if changes:
            logger.info(
                "models changed: added %s, removed %s, changed %s (settings count from the next load)",
                list(changes.added),
                list(changes.removed),
                list(changes.changed),
            )
        for name in changes.changed:
            self.manager.renew(name)
        for name in changes.added:
            if self.library.find(name).entry.preload:
                self.fleet.ensure(name)
                self.manager.want(name, modest=True)
        for name in changes.removed:
            self._background.start(self._forget(name))
        for name in changes.overwritten:
            self._background.start(self._let_go(name))
        self.fleet.changed()

    async def _forget(self, name: str) -> None:
        await self.fleet.unload(name, force=False)
        if self.library.get(name) is None:
            self.fleet.forget(name)

    async def _let_go(self, name: str) -> None:
        """Unload a model whose file was overwritten: what is in memory follows the file, page by page."""
        keys = [each.key for each in self.fleet.instances(name)]
        if all(self.manager.resident(key) is None for key in keys):
            return
        logger.error(
            "the file of model %s was overwritten while it is loaded: its answers may be wrong, and if the "
            "file became shorter, this process may be killed (SIGBUS). The model is unloaded once its "
            "requests have ended. To replace a model's file, write it under another name, then rename it",
            name,
        )
        was_pinned, options = self.manager.status(name).pinned, self.manager.options(name)
        await asyncio.gather(*(self.manager.unload(key, again=True) for key in keys))
        if was_pinned and self.library.get(name) is not None:
            self.manager.want(name, options)

    async def _keep_reloading(self) -> None:
        while True:
            await asyncio.sleep(RELOAD_SECONDS)
            try:
                if await asyncio.to_thread(self.library.changed):
                    self._take_up(await asyncio.to_thread(self.library.read))
            except Exception:
                logger.exception("looking for changed models failed")

    async def _keep_gpu_memory(self) -> None:
        """Asking takes too long to do it for every request."""
        while True:
            self._gpu_memory = await asyncio.to_thread(memory.gpu_memory_used)
            await asyncio.sleep(GPU_MEMORY_SECONDS)

    def _pull_changed(self, job: PullJob) -> None:
        if job.ended:
            self.reload()
        state = ModelState.STOPPED if job.failure is None else ModelState.ABSENT
        before, after = ModelState.ABSENT, ModelState.DOWNLOADING
        if job.ended:
            before, after = ModelState.DOWNLOADING, state
        detail = getattr(job.failure, "message", "") if job.failure else ""
        self.manager.events.publish(ModelEvent(job.name, before, after, time.time(), detail))
