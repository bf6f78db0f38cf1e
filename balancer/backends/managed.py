"""Backends whose life the model manager leads: engines of this process, and child processes."""

from __future__ import annotations

from balancer.backends.base import Backend, BackendState, BackendStatus, Verdict
from balancer.call import Call
from balancer.errors import DEFAULT_RETRY, BalancerError, ModelLoading, NoBackend, NoRoom
from balancer.instances import Instance
from engines.lifecycle.errors import InsufficientMemory
from engines.lifecycle.manager import ModelManager
from engines.lifecycle.states import ModelState, ModelStatus

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


class ManagedBackend(Backend):
    """One instance of a model. The manager loads it when calls wait for it, or when it is wanted."""

    is_managed = True

    def __init__(self, manager: ModelManager, instance: Instance, weight: float) -> None:
        super().__init__(instance.id, weight=weight)
        self.instance = instance
        self._manager = manager
        self._seen = 0

    @property
    def state(self) -> BackendState:
        return _STATES[self._manager.state(self.instance.key)]

    @property
    def generation(self) -> int:
        return self._manager.loads(self.instance.key)

    @property
    def available(self) -> bool:
        return self._manager.can_serve(self.instance.key) and super().available

    def serves(self, model: str) -> bool:
        return model == self.instance.model

    def renewed(self) -> None:
        """What the calls before it was started again met says nothing of it now."""
        if self.generation != self._seen:
            self._seen = self.generation
            self.breaker.reset()

    def obstacle(self) -> BalancerError | None:
        key, model = self.instance.key, self.instance.model
        refusal = self._manager.refusal(key)
        if refusal is None and self.state is BackendState.STOPPED:
            refusal = self._manager.refusal(model)  # a replica follows the first instance
        if refusal is None:
            return None
        if isinstance(refusal, InsufficientMemory):
            return NoRoom(refusal.message, retry_after=DEFAULT_RETRY)
        retry_after = self._manager.status(key).retry_after
        return NoBackend(f"model {model} cannot be served: {refusal.message}", retry_after)

    def excuse(self) -> BalancerError | None:
        status = self._manager.status(self.instance.key)
        if status.state is ModelState.LOADING:
            return _loading(self.instance.model, status)
        if self.available:
            return None
        if status.state is ModelState.FAILED:
            return NoBackend(f"{self.name} of model {status.name} failed: {status.detail}", DEFAULT_RETRY)
        return NoRoom(
            f"there is no room for model {self.instance.model} yet: the models that are loaded are in use",
            retry_after=DEFAULT_RETRY,
        )

    def status(self) -> BackendStatus:
        status = self._manager.status(self.instance.key)
        return BackendStatus(
            **self.figures(),
            models=(self.instance.model,),
            is_replica=self.instance.is_replica,
            detail=status.detail,
            progress=status.progress,
            memory_mb=None if status.info is None else status.info.memory / 2**20,
            restarts=status.restarts,
            info=status.info,
            stats=status.stats,
            extra={"restarts": status.restarts, "eta_seconds": status.eta_seconds},
        )

    def begin(self, call: Call) -> int:
        self._manager.hold(self.instance.key, call.keep_alive)
        return super().begin(call)

    def end(self, ticket: int, outcome: Verdict, seconds: float) -> None:
        super().end(ticket, outcome, seconds)
        self._manager.release(self.instance.key)

    def suspect(self) -> None:
        self._manager.look(self.instance.key)

    def _gone(self) -> NoBackend:
        detail = self._manager.status(self.instance.key).detail
        return NoBackend(f"{self.name} of model {self.instance.model} went away: {detail}", retry_after=1.0)


def _loading(model: str, status: ModelStatus) -> ModelLoading:
    return ModelLoading(
        f"model {model} is still {status.phase or 'loading'} ({100 * status.progress:.0f} %)",
        retry_after=status.eta_seconds or DEFAULT_RETRY,
        state=status.state,
        progress=status.progress,
        eta_seconds=status.eta_seconds,
    )
