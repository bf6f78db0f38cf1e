"""An operator's changes to the cluster: instances scaled and restarted, upstreams added and removed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from app.operations.errors import (
    TooManyUpstreams,
    UnknownInstance,
    UnknownUpstream,
    UpstreamExists,
    UpstreamNotAllowed,
)
from app.operations.restarts import Restart, Restarts
from balancer.backends.base import BackendState
from balancer.backends.upstream import UpstreamBackend
from balancer.backends.upstream_config import Upstream
from balancer.fleet import Fleet
from balancer.instances import MOST_INSTANCES, InstanceKind
from balancer.proxy.guard import Guard, NotAllowed
from balancer.proxy.route import origin_of
from balancer.scaling import ScalingLimits
from engines.errors import RequestError
from engines.lifecycle.errors import ModelConflict
from engines.lifecycle.manager import ModelManager
from engines.models.library import Library

EVERY_INSTANCE = "all"
# Upstreams that a server has at most when one more is added.
MOST_UPSTREAMS = 256
# Seconds in which the name of a new upstream is looked up.
LOOK_UP_SECONDS = 5.0

# What is loaded, is being loaded or failed can be started anew; what is at rest is started by loading it.
_RESTARTABLE = (
    BackendState.READY,
    BackendState.STARTING,
    BackendState.UNHEALTHY,
    BackendState.FAILED,
)


@dataclass(frozen=True, slots=True)
class Rescaled:
    """A model that has the ``instances`` of these ids, and had ``before`` of them."""

    model: str
    before: int
    instances: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RollingRestart:
    """A restart of the ``instances`` of these ids that has begun; ``task`` raises `RestartFailed`."""

    instances: tuple[str, ...]
    task: asyncio.Task[list[Restart]]


class ClusterOperations:
    """The operations, with the rules for each, for routes, a console or a command.

    ``limits`` are the autoscaler's; None without one. ``guard`` knows the addresses that new upstreams may
    have, and ``connect`` makes one a backend of the fleet.
    """

    def __init__(
        self,
        fleet: Fleet,
        manager: ModelManager,
        library: Library,
        limits: ScalingLimits | None,
        *,
        guard: Guard,
        connect: Callable[[Upstream], UpstreamBackend],
    ) -> None:
        self._fleet = fleet
        self._manager = manager
        self._library = library
        self._limits = limits
        self._guard = guard
        self._connect = connect
        self._restarts = Restarts(fleet)

    def stop(self) -> None:
        """Begin no more restarts: the server stops."""
        self._restarts.stop()

    # -- instances ---------------------------------------------------------------------------------

    def scale(self, name: str, change: int, kind: InstanceKind | None = None) -> Rescaled:
        """Give the model of this name so many more instances, of ``kind``, or so many fewer.

        More of them also load the model. Raises `ModelFileNotFound`, and `RequestError` for a number that
        cannot be or a model that only upstreams have.
        """
        model = self._scalable(name)
        self._fleet.ensure(model)
        before = len(self._fleet.instances(model))
        self._check_count(model, before, before + change)
        self._fleet.scale(model, before + change, kind)
        if change > 0:
            self._manager.want(model, self._manager.options(model))
        return Rescaled(model, before, tuple(each.id for each in self._fleet.instances(model)))

    def restart(self, instance_id: str) -> RollingRestart:
        """Begin to restart one instance, or `EVERY_INSTANCE`, one after the other.

        Raises `UnknownInstance`, or `ModelConflict` if it cannot be restarted or another restart goes on.
        """
        instances = self._restartable(instance_id)
        return RollingRestart(tuple(instances), self._restarts.begin(instances))

    def _scalable(self, name: str) -> str:
        """The canonical name of a model that has instances here, or may have."""
        if self._library.get(name) is None and self._fleet.upstreams.serving(name):
            raise RequestError(
                f"only upstreams have {name}: its instances are theirs to scale", param="model"
            )
        return self._library.on_disk(name).name

    def _check_count(self, model: str, before: int, wanted: int) -> None:
        """Raises `RequestError` unless ``model`` may have as many instances as are ``wanted``."""
        if wanted < 1:
            raise RequestError(
                f"of {before} instances of {model} at most {before - 1} can go; "
                f"to free the model, unload it (DELETE /v1/models/{model})",
                param="count",
            )
        if wanted > MOST_INSTANCES:
            raise RequestError(f"a model has at most {MOST_INSTANCES} instances, not {wanted}", param="count")
        limits = self._limits
        if limits is not None and not limits.minimum <= wanted <= limits.maximum:
            raise RequestError(
                f"AUTO_SCALING would undo it: {model} would have {wanted} instances, and MIN_INSTANCES is "
                f"{limits.minimum}, MAX_INSTANCES {limits.maximum}. Change that setting, or set "
                "AUTO_SCALING=false",
                param="count",
            )

    def _restartable(self, wanted: str) -> list[str]:
        """The ids of the instances to restart."""
        fleet = self._fleet
        states = {status.name: status.state for status in fleet.statuses() if status.url is None}
        staying = {instance.id for model in fleet.models() for instance in fleet.instances(model)}
        if wanted == EVERY_INSTANCE:
            return [name for name, state in states.items() if name in staying and state in _RESTARTABLE]
        if wanted not in states:
            names = ", ".join(states) or "none"
            message = f"There is no instance {wanted!r} (instances here: {names}; or {EVERY_INSTANCE!r})."
            raise UnknownInstance(message, "instance_id")
        if wanted not in staying:
            raise ModelConflict(f"{wanted} is on its way out: it finishes its calls and is not started again")
        if states[wanted] not in _RESTARTABLE:
            raise ModelConflict(f"{wanted} is {states[wanted]}: load its model to have it started")
        return [wanted]

    # -- upstreams ---------------------------------------------------------------------------------

    async def add_upstream(self, upstream: Upstream) -> UpstreamBackend:
        """Let calls go to an upstream until the server is started again.

        Raises `UpstreamNotAllowed`, `UpstreamExists` and `TooManyUpstreams`.
        """
        await self._check_address(upstream)
        if len(self._fleet.upstreams) >= MOST_UPSTREAMS:
            raise TooManyUpstreams(f"There are {MOST_UPSTREAMS} upstreams already: remove one first.")
        if self._fleet.upstreams.find(upstream.name) is not None:
            raise UpstreamExists(
                f"There is an upstream {upstream.name} already: remove it first, or give this one a `name`.",
                "name",
            )
        return self._connect(upstream)

    async def _check_address(self, upstream: Upstream) -> None:
        """Raises `UpstreamNotAllowed`. What a name leads to is looked at again with every connection."""
        try:
            async with asyncio.timeout(LOOK_UP_SECONDS):
                await self._guard.addresses(origin_of(upstream.url))
        except NotAllowed as refusal:
            raise UpstreamNotAllowed(refusal.message, "url") from None
        except (OSError, UnicodeError):  # it may have a name later, or only at a proxy
            pass

    async def remove_upstream(self, name: str) -> UpstreamBackend:
        """Send an upstream no more calls; those that it serves go on. Raises `UnknownUpstream`."""
        backend = self._fleet.upstreams.find(name)
        if backend is None:
            names = ", ".join(each.name for each in self._fleet.upstreams) or "none"
            raise UnknownUpstream(f"There is no upstream {name!r} (upstreams here: {names}).")
        await self._fleet.remove_upstream(backend)
        return backend
