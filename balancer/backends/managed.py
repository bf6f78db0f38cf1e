"""Managed backends: those that the model manager loads and unloads, engines of this process and workers."""

from __future__ import annotations

from functools import partial

from balancer.backends.base import Backend, BackendState, BackendStatus, Verdict
from balancer.backends.readiness import BUSY, READY, Arrival, Coming, Gone, Readiness
from balancer.call import Call
from balancer.errors import DEFAULT_RETRY, BalancerError, CannotServe, ModelLoading, NoBackend, NoRoom
from balancer.instances import Instance
from engines.errors import EngineError
from engines.lifecycle.errors import NeverFits
from engines.lifecycle.manager import ModelManager
from engines.lifecycle.states import ModelState

_STATES = {
    ModelState.ABSENT: BackendState.STOPPED,
    ModelState.DOWNLOADING: BackendState.STOPPED,
    ModelState.STOPPED: BackendState.STOPPED,
    ModelState.SLEEPING: BackendState.STOPPED,
    ModelState.LOADING: BackendState.STARTING,
    ModelState.READY: BackendState.READY,
    ModelState.DRAINING: BackendState.DRAINING,
    ModelState.FAILED: BackendState.FAILED,
}
_AT_REST = tuple(state for state, seen_as in _STATES.items() if seen_as is BackendState.STOPPED)


class ManagedBackend(Backend):
    """One instance of a model. The manager loads it when calls wait for it, or when it is wanted."""

    is_managed = True

    def __init__(self, manager: ModelManager, instance: Instance, weight: float) -> None:
        super().__init__(instance.id, weight=weight)
        self.instance = instance
        self._key = instance.key
        self._manager = manager
        self._seen = 0
        self._is_replica = instance.is_replica
        # Made once: a pool of replicas at rest is asked at every pick.
        self._at_rest = Coming(Arrival.ON_DEMAND, self._no_room)
        self._starting = Coming(Arrival.STARTING, self._loading)
        self._restarting = Coming(Arrival.RESTARTING, self._crashed)

    @property
    def state(self) -> BackendState:
        return _STATES[self._manager.state(self._key)]

    @property
    def generation(self) -> int:
        return self._manager.loads(self._key)

    @property
    def may_have_adapters(self) -> bool:
        """Whether its engine takes adapters, as far as is known before it is loaded."""
        info = self._manager.status(self.instance.key).info
        return info is None or "adapters" in info.capabilities

    def serves(self, model: str) -> bool:
        return model == self.instance.model

    def renewed(self) -> None:
        """Reset the breaker if the instance was started again: failures of before say nothing of it now."""
        if self.generation != self._seen:
            self._seen = self.generation
            self.breaker.reset()

    def readiness(self) -> Readiness:
        """As of any backend; and it takes no new calls while its model makes way for another."""
        if self._manager.can_serve(self._key):
            return self._room()
        if self._manager.state(self._key) is not ModelState.READY:
            return self._absence()
        room = self._room()
        return BUSY if room is READY else room

    def _absence(self) -> Coming | Gone:
        key, state = self._key, self._manager.state(self._key)
        if state is ModelState.LOADING:
            return self._starting
        refusal = self._manager.refusal(key)
        if refusal is None and self._is_replica and state in _AT_REST:
            key = self.instance.model
            refusal = self._manager.refusal(key)
        if refusal is not None:
            return Gone(partial(self._refusal, key, refusal))
        return self._restarting if state is ModelState.FAILED else self._at_rest

    def _refusal(self, key: str, reason: EngineError) -> BalancerError:
        """The error for calls, as the instance of ``key`` cannot be loaded now: this one, or its model's
        first, which a replica that is not loaded follows."""
        if isinstance(reason, NeverFits):  # its message names the model
            return CannotServe(reason.message, reason)
        message = f"model {self.instance.model} cannot be served: {reason.message}"
        if reason.is_permanent:
            return CannotServe(message, reason)
        return NoBackend(message, self._manager.status(key).retry_after)

    def _loading(self) -> ModelLoading:
        status = self._manager.status(self._key)
        phase, percent = status.phase or "loading", 100 * status.progress
        return ModelLoading(
            f"model {self.instance.model} is still {phase} ({percent:.0f} %)",
            retry_after=status.eta_seconds or DEFAULT_RETRY,
            state=status.state,
            progress=status.progress,
            eta_seconds=status.eta_seconds,
        )

    def _crashed(self) -> NoBackend:
        detail = self._manager.status(self._key).detail
        return NoBackend(f"{self.name} of model {self.instance.model} failed: {detail}", DEFAULT_RETRY)

    def _no_room(self) -> NoRoom:
        return NoRoom(
            f"there is no room for model {self.instance.model} yet: the models that are loaded are in use",
            retry_after=DEFAULT_RETRY,
        )

    def status(self) -> BackendStatus:
        status = self._manager.status(self._key)
        held = None if status.stats is None else status.stats.memory
        return BackendStatus(
            **self.figures(),
            models=(self.instance.model,),
            is_replica=self.instance.is_replica,
            detail=status.detail,
            progress=status.progress,
            memory_mb=None if status.info is None else (held or status.info.memory) / 2**20,
            restarts=status.restarts,
            info=status.info,
            stats=status.stats,
            eta_seconds=status.eta_seconds,
        )

    def begin(self, call: Call) -> int:
        self._manager.hold(self._key, call.keep_alive)
        return super().begin(call)

    def end(self, ticket: int, outcome: Verdict, seconds: float) -> None:
        super().end(ticket, outcome, seconds)
        self._manager.release(self._key)

    def suspect(self) -> None:
        self._manager.look(self._key)

    def _gone(self) -> NoBackend:
        detail = self._manager.status(self._key).detail
        return NoBackend(f"{self.name} of model {self.instance.model} went away: {detail}", retry_after=1.0)
