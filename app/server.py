"""The composition root: what the server is made of, and how it starts and stops."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from app.cluster import Cluster
from app.configuration import (
    WorkerModel,
    first_model,
    manager_limits,
    media_loader,
    model_loader,
    open_library,
    response_store,
    worker_library_model,
)
from app.database.database import Database
from app.database.errors import DatabaseUnavailable
from app.inference.grants import Grants
from app.inference.ignored import IgnoredFields
from app.inference.intake import Intake
from app.inference.outcome import RequestRecord, Sink
from app.inference.pipeline import Pipeline
from app.inference.targets import Targets
from app.operations.adapters import AdapterOperations
from app.operations.library_watch import LibraryWatch
from app.operations.loads import Loads
from app.operations.pulls import KEPT_AFTER, Pulls
from app.pull_requests import usefulness
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
from engines.lifecycle.loader import engine_for
from engines.lifecycle.manager import ModelManager
from engines.lifecycle.states import ModelState
from engines.machine import malloc, memory
from engines.machine.background import BackgroundTasks
from engines.models import store
from engines.models.facts import peek
from engines.models.model import Model
from engines.models.pull.jobs import PullJob

if TYPE_CHECKING:
    from app.storage import Storage

logger = logging.getLogger("server")

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
        self.metrics = Metrics(self.balancer.statuses, lambda: self.balancer.queue_depth)
        self.metrics.registry.register(ModelCollector(self.manager))
        self.metrics.registry.register(
            ClusterCollector(self.balancer.statuses, self.failovers, self.cluster.scaling)
        )
        self.library_watch = LibraryWatch(self.library, self.manager, self.fleet)
        useful = usefulness(facts, settings.inference_engine, self.manager.limits.budget)
        self.pulls = Pulls(self.library, self.manager, useful, self.library_watch.reload, self._keep_pull)
        self.loads = Loads(self.fleet, self.manager, loader, settings.queue_timeout)
        self.adapters = AdapterOperations(
            self.fleet, self.manager, self.library, loader, self.balancer.ongoing
        )
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
        self.intake = Intake(
            self.pipeline,
            self.targets,
            self.grants,
            IgnoredFields(),
            self.default.name,
            strict=settings.strict_requests,
            is_worker=self.is_worker,
        )
        self.large_bodies = asyncio.Lock()
        self.database = Database(settings.database)  # a worker keeps nothing there
        self._storage: Storage | None = None
        self._opening_storage = asyncio.Lock()
        self.responses = response_store(settings, self.database)
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
        self._background.start(self.library_watch.keep_looking())
        if self.database.exists:
            self._background.start(self._open_storage())
        loads = LoadLog(self.settings, self.default.name, self.manager.statuses, self.manager.events)
        self._background.start(loads.keep_telling())
        self._background.start(loads.tell_when_ready())
        if self._facts.cuda:
            self._background.start(self._keep_gpu_memory())

    async def stop(self) -> None:
        self._background.cancel()
        self.library_watch.stop()
        if self._storage is not None:
            await self._storage.stop()
        await self.pulls.stop()
        self.media.close()
        await self.cluster.stop()
        await self.responses.close()
        await self.database.close()

    async def storage(self) -> Storage:
        """What outlives a restart. Raises `DatabaseUnavailable`."""
        async with self._opening_storage:
            if self._storage is None:
                await self.database.open()
                from app.storage import Inferences, open_storage

                inferences = Inferences(
                    self.intake,
                    self.pipeline,
                    self.responses,
                    self.balancer.foreground,
                    self.targets.resolve,
                    self._is_loaded,
                    self.large_bodies,
                )
                storage = await open_storage(self.settings, self.database, inferences, self.pulls)
                await storage.start()
                self._storage = storage
        return self._storage

    def _is_loaded(self, name: str) -> bool:
        """Whether the model ``name`` answers without being loaded first."""
        model = self.library.get(name)
        if model is None or self.is_elsewhere(name):
            return True
        return self.manager.status(model.name).state is ModelState.READY

    def _keep_pull(self, pull: PullJob, arguments: Mapping[str, Any]) -> None:
        self._background.start(self._note_pull(pull, arguments))

    async def _note_pull(self, pull: PullJob, arguments: Mapping[str, Any]) -> None:
        """Have a pull that takes its time go on after a restart."""
        await asyncio.sleep(KEPT_AFTER)
        if pull.ended:
            return
        try:
            await (await self.storage()).note_pull(pull, arguments)
        except DatabaseUnavailable as error:
            logger.warning("the pull of %s would not outlive a restart: %s", pull.name, error.message)

    async def _open_storage(self) -> None:
        try:
            await self.storage()
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

    async def _keep_gpu_memory(self) -> None:
        """Asking takes too long to do it for every request."""
        while True:
            self._gpu_memory = await asyncio.to_thread(memory.gpu_memory_used)
            await asyncio.sleep(GPU_MEMORY_SECONDS)
