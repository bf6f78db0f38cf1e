"""All backends there are: the instances of each model, and the upstreams that have it too."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from balancer.backends.base import Backend, BackendState, BackendStatus
from balancer.backends.managed import ManagedBackend
from balancer.backends.upstream import UpstreamBackend
from balancer.call import Call
from balancer.errors import UnknownModel
from balancer.instances import Instance, InstanceKind, Instances
from balancer.policies import Policy, Strategy, make_policy
from balancer.prefixes import prefix_blocks
from engines.errors import EngineError, ModelFileNotFound
from engines.lifecycle.errors import ModelConflict
from engines.lifecycle.manager import ModelManager
from engines.lifecycle.states import ModelState

logger = logging.getLogger("balancer")

_GONE = (ModelState.STOPPED, ModelState.DRAINING)
_RESTING = (ModelState.STOPPED, ModelState.SLEEPING, ModelState.DRAINING)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a model is to be run, before anybody scales it. ``weight`` is each instance's."""

    instances: int = 1
    kind: InstanceKind = InstanceKind.LOCAL
    weight: float = 1.0


class Fleet:
    """Owns which instances there are; the manager decides when each is loaded.

    The first instance of a model comes and goes as calls and room want it; its replicas follow it, as far as
    there is room. ``on_change`` is called whenever a waiting call might be served or refused now.
    """

    def __init__(
        self,
        manager: ModelManager,
        instances: Instances,
        *,
        make: Callable[[Instance, float], ManagedBackend],
        plan: Callable[[str], Plan | None],
        strategy: Strategy = Strategy.ROUND_ROBIN,
        grace: float = 30.0,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """``plan`` is None for a model that cannot be loaded here. ``grace`` seconds end calls that are left
        on an instance that is to go."""
        self.on_change = on_change
        self._manager = manager
        self._instances = instances
        self._make = make
        self._plan = plan
        self._strategy = strategy
        self._grace = grace
        self._managed: dict[str, ManagedBackend] = {}
        self._upstreams: list[UpstreamBackend] = []
        self._policies: dict[str, Policy] = {}
        self._known: dict[str, tuple[Backend, ...]] = {}
        self._leaving: set[str] = set()
        self._restarting: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    # -- the pool ----------------------------------------------------------------------------------

    def backends(self, model: str) -> tuple[Backend, ...]:
        """Raises `UnknownModel`."""
        known = self._known.get(model)
        if known is None:
            known = (*self._of_model(model), *(r for r in self._upstreams if r.serves(model)))
            if not known:
                raise UnknownModel(f"there is no model {model!r}")
            self._known[model] = known
        return known

    def select(self, model: str, available: Sequence[Backend], call: Call) -> Backend | None:
        if len(self.backends(model)) == 1:
            return available[0]
        policy = self._policies.get(model)
        if policy is None:
            policy = self._policies[model] = make_policy(self._strategy)
        prefix: tuple[int, ...] = ()
        if self._strategy is Strategy.PREFIX_AWARE and call.conversation is not None:
            prefix = prefix_blocks(call.conversation())
        return policy.select(available, prefix)

    def demand(self, models: Iterable[str]) -> None:
        self._manager.demand(model for model in models if self._instances.get(model) is not None)

    def statuses(self) -> list[BackendStatus]:
        """Of the instances by their numbers, then of the upstreams."""
        managed = sorted(self._managed.values(), key=lambda backend: backend.instance.number)
        return [backend.status() for backend in (*managed, *self._upstreams)]

    # -- strategy ----------------------------------------------------------------------------------

    @property
    def strategy(self) -> Strategy:
        return self._strategy

    @strategy.setter
    def strategy(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self._policies.clear()

    # -- instances ---------------------------------------------------------------------------------

    def instances(self, model: str) -> list[Instance]:
        """Those that are there or on their way, without those that are leaving."""
        return [each for each in self._instances.of(model) if each.key not in self._leaving]

    def models(self) -> list[str]:
        """Those that have instances."""
        return list(dict.fromkeys(instance.model for instance in self._instances))

    def find(self, instance_id: str) -> ManagedBackend | None:
        return next((b for b in self._managed.values() if b.name == instance_id), None)

    def ensure(self, model: str) -> None:
        """Make the instances that ``model`` is to have, if it has none yet. Nothing is loaded by this."""
        if self._instances.get(model) is None and (plan := self._plan(model)) is not None:
            for _ in range(plan.instances):
                self._add(model, plan)

    def scale(self, model: str, count: int, kind: InstanceKind | None = None) -> int:
        """Have ``count`` instances of ``model``, at least one; how many that is.

        New ones are of ``kind``. Those that go finish what they do.
        """
        plan = self._plan(model)
        present = self.instances(model)
        if plan is None or not present:
            return 0
        if kind is not None:
            plan = Plan(plan.instances, kind, plan.weight)
        for _ in range(count - len(present)):
            self._add(model, plan)
        surplus = [each for each in present if each.is_replica]
        surplus.sort(key=lambda each: (self._manager.state(each.key) is ModelState.READY, -each.number))
        for instance in surplus[: max(0, len(present) - max(1, count))]:
            self._retire(instance)
        self._tend(model)
        return len(self.instances(model))

    async def restart(self, backend: ManagedBackend) -> None:
        """Start the instance anew; what it does ends first, and if it is the only one, another is started
        before. Raises `ModelConflict` if that is under way, and `EngineError` if it does not come back."""
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

    async def unload(self, model: str, *, force: bool = False) -> None:
        """Free every instance of ``model``; a later call loads it again. Raises `ModelConflict`."""
        await self._manager.unload(model, force=force)
        replicas = [each.key for each in self._instances.of(model) if each.is_replica]
        await asyncio.gather(*(self._manager.unload(key, force=force) for key in replicas))

    def forget(self, model: str) -> None:
        """``model`` does not exist any more."""
        for instance in self._instances.of(model):
            self._remove(instance)
        self._policies.pop(model, None)

    # -- upstreams ---------------------------------------------------------------------------------

    @property
    def upstreams(self) -> Sequence[UpstreamBackend]:
        return tuple(self._upstreams)

    def add_upstream(self, remote: UpstreamBackend) -> None:
        self._upstreams.append(remote)
        remote.start()
        self.changed()

    async def remove_upstream(self, remote: UpstreamBackend) -> None:
        """Take it out at once; calls that it serves go on."""
        self._upstreams.remove(remote)
        remote.drain()
        self.changed()
        await remote.stop()

    # -- life --------------------------------------------------------------------------------------

    def tick(self) -> None:
        """To be called every second or so."""
        for backend in (*self._managed.values(), *self._upstreams):
            backend.refresh()
        self.on_change()  # a breaker may let a call through by now

    def changed(self) -> None:
        """Something about a backend is different now."""
        self._known.clear()
        for backend in self._managed.values():
            backend.renewed()
        for model in self.models():
            self._tend(model)
        self.on_change()

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*(remote.stop() for remote in self._upstreams))

    # -- inside ------------------------------------------------------------------------------------

    def _of_model(self, model: str) -> list[ManagedBackend]:
        if self._instances.get(model) is None:
            try:
                self.ensure(model)
            except ModelFileNotFound:
                return []
        return [self._managed[each.key] for each in self._instances.of(model)]

    def _add(self, model: str, plan: Plan) -> Instance:
        instance = self._instances.add(model, plan.kind)
        self._managed[instance.key] = self._make(instance, plan.weight)
        self._known.pop(model, None)
        return instance

    def _remove(self, instance: Instance) -> None:
        self._instances.remove(instance)
        del self._managed[instance.key]
        self._leaving.discard(instance.key)
        self._known.pop(instance.model, None)
        self._manager.forget(instance.key)

    def _tend(self, model: str) -> None:
        """Have replicas loaded while the first instance is, and freed when it rests."""
        state = self._manager.state(model)
        for instance in self.instances(model):
            key = instance.key
            if not instance.is_replica or key in self._restarting:
                continue
            there = self._manager.state(key)
            wanted = self._manager.is_wanted(key)
            if state is ModelState.READY and there is ModelState.STOPPED and not wanted:
                self._manager.want(key, self._manager.options(model), modest=True)
            elif state in _RESTING and model not in self._restarting and (wanted or there not in _GONE):
                self._in_background(self._manager.unload(key))

    def _retire(self, instance: Instance) -> None:
        """Let it end what it does, and take it out."""
        if self._instances.get(instance.key) is instance and instance.key not in self._leaving:
            self._leaving.add(instance.key)
            self._in_background(self._leave(instance))

    async def _leave(self, instance: Instance) -> None:
        await self._drain(instance)
        if self._instances.get(instance.key) is instance:  # its model may have been forgotten meanwhile
            self._remove(instance)
        self.on_change()

    async def _drain(self, instance: Instance) -> None:
        """Unload it once its calls ended, or after the grace: those that are left go on elsewhere."""
        try:
            await asyncio.wait_for(self._manager.unload(instance.key, again=True), self._grace)
        except TimeoutError:
            logger.warning("%s still had calls after %g s", instance.id, self._grace)
            await self._manager.unload(instance.key, again=True, force=True)

    async def _stand_in(self, instance: Instance) -> Instance | None:
        """Another instance for the time in which ``instance`` is not there, if it is the only one."""
        others = (b for b in self.backends(instance.model) if b.name != instance.id)
        plan = self._plan(instance.model)
        if plan is None or any(backend.state is BackendState.READY for backend in others):
            return None
        stand_in = self._add(instance.model, Plan(1, instance.kind, plan.weight))
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

    def _in_background(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
