"""The fleet: the instances of every model, and the upstreams that have the model too."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from balancer.backends.base import Backend, BackendStatus
from balancer.backends.managed import ManagedBackend
from balancer.backends.readiness import Busy, Ready
from balancer.backends.upstream import UpstreamBackend
from balancer.call import Call, Target
from balancer.errors import UnknownModel
from balancer.instances import Deployment, Instance, InstanceKind, Instances
from balancer.policies import Strategy
from balancer.replicas import Replicas
from balancer.selector import Selector
from balancer.upstreams import Upstreams
from engines.errors import EngineError, ModelFileNotFound
from engines.lifecycle.errors import ModelConflict
from engines.lifecycle.manager import ModelManager
from engines.lifecycle.states import ModelState
from engines.machine.background import BackgroundTasks
from engines.machine.reaction import Reaction

logger = logging.getLogger("balancer")


class Fleet:
    """The backends of every model: it makes and removes instances, which the manager loads and unloads.

    The first instance of a model is loaded for calls and evicted for room; its replicas follow it, as far as
    there is room. ``on_change`` is called whenever a waiting call might be served or refused now.
    """

    def __init__(
        self,
        manager: ModelManager,
        instances: Instances,
        *,
        make: Callable[[Instance, float], ManagedBackend],
        deployment: Callable[[str], Deployment | None],
        strategy: Strategy = Strategy.ROUND_ROBIN,
        grace: float = 30.0,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """``deployment`` is None for a model that cannot be loaded here. An instance that is to go has
        ``grace`` seconds in which its calls may end."""
        self.on_change = on_change
        self.upstreams = Upstreams()
        self._manager = manager
        self._instances = instances
        self._make = make
        self._deployment = deployment
        self._selector = Selector(strategy)
        self._grace = grace
        self._managed: dict[str, ManagedBackend] = {}
        self._pools: dict[str, tuple[Backend, ...]] = {}
        self._leaving: set[str] = set()
        self._restarting: set[str] = set()
        self._background = BackgroundTasks()
        self.states_changed = Reaction(self._take_up)
        self._replicas = Replicas(manager, self._restarting, self.states_changed)

    # -- the pool ----------------------------------------------------------------------------------

    def backends(self, model: str, adapter: str | None = None) -> tuple[Backend, ...]:
        """The instances of ``model`` and the upstreams that have it, or that have ``adapter``.

        Raises `UnknownModel`.
        """
        if adapter is not None:
            return self._with_adapter(model, adapter)
        pool = self._pools.get(model)
        if pool is None:
            pool = (*self._instances_of(model), *self.upstreams.serving(model))
            if not pool:
                raise UnknownModel(f"there is no model {model!r}")
            self._pools[model] = pool
        return pool

    def _with_adapter(self, model: str, adapter: str) -> tuple[Backend, ...]:
        """Not kept: whether an instance can have adapters is known once it is loaded."""
        instances = self._instances_of(model)
        able = [each for each in instances if each.may_have_adapters]
        elsewhere = self.upstreams.serving(*Target(model, adapter).names)
        pool = (*able, *elsewhere) or tuple(instances)  # which then say why not
        if not pool:
            raise UnknownModel(f"no backend of model {model!r} has the adapter {adapter!r}")
        return pool

    def select(self, model: str, ready: Sequence[Backend], call: Call) -> Backend | None:
        is_only = len(ready) == 1 == len(self.backends(model, call.target.adapter))
        return ready[0] if is_only else self._selector.select(ready, call)

    def demand(self, models: Iterable[str]) -> None:
        self._manager.demand(model for model in models if self._instances.get(model) is not None)

    def statuses(self) -> list[BackendStatus]:
        """Of the instances by their numbers, then of the upstreams."""
        managed = sorted(self._managed.values(), key=lambda backend: backend.instance.number)
        return [backend.status() for backend in (*managed, *self.upstreams)]

    @property
    def strategy(self) -> Strategy:
        return self._selector.strategy

    @strategy.setter
    def strategy(self, strategy: Strategy) -> None:
        self._selector.strategy = strategy

    # -- instances ---------------------------------------------------------------------------------

    def instances(self, model: str) -> list[Instance]:
        """The instances of ``model``, loaded or not, without those that are leaving."""
        return [each for each in self._instances.of(model) if each.key not in self._leaving]

    def models(self) -> list[str]:
        """The models that have instances."""
        return list(dict.fromkeys(instance.model for instance in self._instances))

    def find(self, instance_id: str) -> ManagedBackend | None:
        return next((each for each in self._managed.values() if each.name == instance_id), None)

    def ensure(self, model: str) -> None:
        """Make the instances of the model's deployment, if it has none yet. Nothing is loaded by this."""
        if self._instances.get(model) is None and (deployment := self._deployment(model)) is not None:
            for _ in range(deployment.instances):
                self._add(model, deployment)

    def scale(self, model: str, count: int, kind: InstanceKind | None = None) -> int:
        """Make or retire instances until ``model`` has ``count``, at least one; returns how many it has.

        New ones are of ``kind``, which is the deployment's unless given. A model without instances gets none.
        """
        deployment = self._deployment(model)
        present = self.instances(model)
        if deployment is None or not present:
            return 0
        if kind is not None:
            deployment = replace(deployment, kind=kind)
        for _ in range(count - len(present)):
            self._add(model, deployment)
        surplus = [each for each in present if each.is_replica]
        surplus.sort(key=lambda each: (self._manager.state(each.key) is ModelState.READY, -each.number))
        for instance in surplus[: max(0, len(present) - max(1, count))]:
            self._retire(instance)
        self._replicas.tend(model, self.instances(model))
        return len(self.instances(model))

    async def restart(self, backend: ManagedBackend) -> None:
        """Unload an instance once its calls have ended, and load it again; a stand-in serves for an only one.

        Raises `ModelConflict` while it is restarted or leaving, and `EngineError` if it does not come back.
        """
        instance, manager = backend.instance, self._manager
        if instance.key in self._restarting | self._leaving:
            raise ModelConflict(f"{instance.id} is being restarted or removed already")
        options = manager.options(instance.key)
        self._restarting.add(instance.key)
        stand_in = None
        try:
            stand_in = await self._stand_in(instance)
            await self._drain(instance)
            await manager.load(instance.key, options, patience=self._grace)
        except EngineError:
            stand_in = None  # it goes on serving
            raise
        finally:
            self._restarting.discard(instance.key)
            if stand_in is not None:
                self._retire(stand_in)
            self.states_changed()  # its model may have gone meanwhile

    async def unload(self, model: str, *, force: bool = False) -> None:
        """Free every instance of ``model``; a later call loads it again. Raises `ModelConflict`."""
        await self._manager.unload(model, force=force)
        replicas = [each.key for each in self._instances.of(model) if each.is_replica]
        await asyncio.gather(*(self._manager.unload(key, force=force) for key in replicas))

    def forget(self, model: str) -> None:
        """Remove every instance of ``model``, which does not exist any more."""
        for instance in self._instances.of(model):
            self._remove(instance)
        self._selector.forget(model)

    # -- upstreams ---------------------------------------------------------------------------------

    def add_upstream(self, upstream: UpstreamBackend) -> None:
        self.upstreams.add(upstream)
        self.changed()

    async def remove_upstream(self, upstream: UpstreamBackend) -> None:
        """Send it no more calls from now on; those that it serves go on."""
        self.upstreams.remove(upstream)
        self.changed()
        await upstream.stop()

    # -- life --------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Let the backends' statistics fade; to be called every second or so."""
        for backend in (*self._managed.values(), *self.upstreams):
            backend.refresh()
        self.on_change()  # a breaker may let a call through by now

    def changed(self) -> None:
        """Take up other upstreams, other models of an upstream, or other models on disk."""
        self._pools.clear()
        self.states_changed()

    async def stop(self) -> None:
        self._replicas.close()
        self._background.cancel()
        await self.upstreams.stop()

    # -- inside ------------------------------------------------------------------------------------

    def _instances_of(self, model: str) -> list[ManagedBackend]:
        if self._instances.get(model) is None:
            try:
                self.ensure(model)
            except ModelFileNotFound:
                return []
        return [self._managed[each.key] for each in self._instances.of(model)]

    def _add(self, model: str, deployment: Deployment) -> Instance:
        instance = self._instances.add(model, deployment.kind)
        self._managed[instance.key] = self._make(instance, deployment.weight)
        self._pools.pop(model, None)
        return instance

    def _remove(self, instance: Instance) -> None:
        self._instances.remove(instance)
        del self._managed[instance.key]
        self._leaving.discard(instance.key)
        self._pools.pop(instance.model, None)
        self._manager.forget(instance.key)

    def _take_up(self) -> None:
        """Take up other states of instances: the pools have the same backends as before."""
        for backend in self._managed.values():
            backend.renewed()
        for model in self.models():
            self._replicas.tend(model, self.instances(model))
        self.on_change()

    def _retire(self, instance: Instance) -> None:
        """Drain the instance and remove it, in the background."""
        if self._instances.get(instance.key) is instance and instance.key not in self._leaving:
            self._leaving.add(instance.key)
            self._background.start(self._leave(instance))

    async def _leave(self, instance: Instance) -> None:
        await self._drain(instance)
        if self._instances.get(instance.key) is instance:  # its model may have been forgotten meanwhile
            self._remove(instance)
        self.on_change()

    async def _drain(self, instance: Instance) -> None:
        """Unload the instance once its calls have ended, or after the grace: the rest resume elsewhere."""
        try:
            await asyncio.wait_for(self._manager.unload(instance.key, again=True), self._grace)
        except TimeoutError:
            logger.warning("%s still had calls after %g s", instance.id, self._grace)
            await self._manager.unload(instance.key, again=True, force=True)

    async def _stand_in(self, instance: Instance) -> Instance | None:
        """An instance to serve while ``instance`` is restarted; None if another backend does, or if there is
        no room for one."""
        others = (b.readiness() for b in self.backends(instance.model) if b.name != instance.id)
        deployment = self._deployment(instance.model)
        if deployment is None or any(isinstance(other, Ready | Busy) for other in others):
            return None
        stand_in = self._add(instance.model, replace(deployment, kind=instance.kind))
        try:
            await self._manager.load(
                stand_in.key, self._manager.options(instance.key), patience=0.0, modest=True
            )
        except EngineError as error:
            logger.warning("%s is restarted without a stand-in: %s", instance.id, error.message)
            self._retire(stand_in)
            return None
        except asyncio.CancelledError:
            self._retire(stand_in)
            raise
        return stand_in
