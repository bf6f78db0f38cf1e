"""The cluster: the backends that calls are balanced over, made from the settings and the catalog."""

from __future__ import annotations

import asyncio
import logging

from app.operations.cluster import ClusterOperations
from app.settings import Settings, forward_proxies
from app.worker_launcher import WorkerLauncher
from balancer.backends.local import LocalBackend
from balancer.backends.managed import ManagedBackend
from balancer.backends.upstream import UpstreamBackend
from balancer.backends.upstream_config import Upstream, check_names, from_catalog, parse_upstreams
from balancer.backends.worker import WorkerBackend
from balancer.balancer import Balancer, QueueLimits
from balancer.dispatch import Failovers
from balancer.fleet import Fleet
from balancer.instances import Deployment, Instance, InstanceKind, InstanceLoader, Instances
from balancer.proxy.client import ProxyClient
from balancer.proxy.guard import Guard, NotAllowed
from balancer.proxy.route import origin_of
from balancer.scaling import Scaling, ScalingLimits
from engines.lifecycle.admission import ModelLimits
from engines.lifecycle.loader import ModelLoader
from engines.lifecycle.manager import ModelManager
from engines.models.catalog import CatalogError
from engines.models.catalog.errors import Problem
from engines.models.library import Library

logger = logging.getLogger("balancer")

# The autoscalers decide, and breakers are looked at, every so many seconds.
TICK_SECONDS = 1.0


class Cluster:
    """The manager of models, their instances, upstreams, and the balancer in front of all of them.

    ``operations`` are what an operator may change while it runs.
    """

    def __init__(
        self,
        settings: Settings,
        library: Library,
        models: ModelLoader,
        limits: ModelLimits,
        *,
        is_worker: bool = False,
    ) -> None:
        """``is_worker``: its parent balances; this server has one instance of its one model."""
        self._settings = settings
        self._library = library
        self._is_worker = is_worker
        self.proxy = ProxyClient(
            first_byte_timeout=settings.first_byte_timeout,
            stall_timeout=settings.stall_timeout,
            proxies=forward_proxies(),
        )
        self.instances = Instances()
        start_worker = WorkerLauncher(
            settings, library, self.instances, self.proxy, lambda key: self.manager.look(key)
        )
        self.manager = ModelManager(InstanceLoader(models, self.instances, start_worker), limits)
        self.fleet = Fleet(
            self.manager,
            self.instances,
            make=self._backend,
            deployment=self._deployment,
            strategy=settings.load_balance_strategy,
            grace=settings.shutdown_grace,
        )
        self.balancer = Balancer(balancer_limits(settings), self.fleet)
        self.failovers = Failovers()
        self.scaling: Scaling | None = None
        autoscaling = scaling_limits(settings)
        if autoscaling is not None:
            self.scaling = Scaling(self.fleet, self.manager, self.balancer, autoscaling)
        # Who may add one while the server runs is trusted less than who starts it.
        self._guard = Guard(settings.allowed_upstreams)
        self._own_guard = self._guard if settings.allowed_upstreams else None
        self.operations = ClusterOperations(
            self.fleet,
            self.manager,
            library,
            autoscaling,
            guard=self._guard,
            connect=lambda upstream: self.add_upstream(upstream, self._guard),
        )
        self.fleet.on_change = self.balancer.changed
        self.manager.on_change = self.fleet.states_changed
        self._upstreams = [] if is_worker else configured_upstreams(settings, library)
        self._ticking: asyncio.Task[None] | None = None

    @property
    def balances(self) -> bool:
        return self._settings.inference_mode == "load_balance"

    def start(self) -> None:
        self.manager.start()
        for upstream in self._upstreams:
            self.add_upstream(upstream, self._own_guard)
        self._ticking = asyncio.get_running_loop().create_task(self._keep_ticking())

    async def stop(self) -> None:
        """Free every model and end every child process."""
        if self._ticking is not None:
            self._ticking.cancel()
        self.operations.stop()
        await self.fleet.stop()
        await self.manager.stop()
        await self.proxy.close()

    def add_upstream(self, upstream: Upstream, guard: Guard | None) -> UpstreamBackend:
        backend = UpstreamBackend(
            upstream,
            self.proxy,
            interval=self._settings.health_check_interval,
            guard=guard,
            on_change=self.fleet.changed,
        )
        self.fleet.add_upstream(backend)
        return backend

    def _deployment(self, model: str) -> Deployment | None:
        """How ``model`` is run; None while it is not on disk. Raises `ModelFileNotFound`."""
        found = self._library.find(model)
        if found.is_absent:
            return None
        if self._is_worker:
            return Deployment()
        settings, entry = self._settings, found.entry
        count = entry.instances or (settings.cluster_instances if self.balances else 1)
        if self.scaling is not None:
            count = min(max(count, settings.min_instances), settings.max_instances)
        return Deployment(count, InstanceKind(settings.instance_kind), entry.weight)

    def _backend(self, instance: Instance, weight: float) -> ManagedBackend:
        if instance.kind is InstanceKind.PROCESS:
            return WorkerBackend(self.manager, instance, weight, self.proxy)
        return LocalBackend(self.manager, instance, weight)

    async def _keep_ticking(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                if self.scaling is not None:
                    self.scaling.tick()
                self.fleet.tick()
            except Exception:
                logger.exception("looking after the instances failed; it goes on")


def configured_upstreams(settings: Settings, library: Library) -> list[Upstream]:
    """The upstreams of the catalog, less those that are wrong, which the log tells, and of the setting
    UPSTREAMS. Raises `CatalogError`."""
    guard = Guard(settings.allowed_upstreams) if settings.allowed_upstreams else None
    upstreams: list[Upstream] = []
    for entry in library.upstreams:
        try:
            upstreams = _checked([*upstreams, from_catalog(entry, library.base)], guard)
        except (ValueError, NotAllowed) as error:
            logger.error("the upstream %s of the catalog is left out: %s", entry.name or entry.url, error)
    try:
        return _checked([*upstreams, *parse_upstreams(settings.upstreams)], guard)
    except (ValueError, NotAllowed) as error:
        raise CatalogError("upstreams", [Problem(0, str(error))]) from None


def _checked(upstreams: list[Upstream], guard: Guard | None) -> list[Upstream]:
    """``upstreams``. Raises `ValueError`, and `NotAllowed` for one that ``guard`` does not let through."""
    check_names(upstreams)
    for upstream in upstreams:
        if guard is not None:
            guard.check(origin_of(upstream.url))
    return upstreams


def balancer_limits(settings: Settings) -> QueueLimits:
    return QueueLimits(
        concurrent=settings.max_concurrent_requests,
        queued=settings.max_queued_requests,
        queue_timeout=settings.queue_timeout,
        load_timeout=settings.load_timeout,
    )


def scaling_limits(settings: Settings) -> ScalingLimits | None:
    """None unless every model's instances follow its calls."""
    if settings.inference_mode != "load_balance" or not settings.auto_scaling:
        return None
    return ScalingLimits(settings.scale_target, settings.min_instances, settings.max_instances)
