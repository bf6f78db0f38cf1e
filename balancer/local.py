"""Backends that are engines in this process, and the pool of them."""

from __future__ import annotations

from collections.abc import Iterable

from balancer.backend import BackendState, BackendStatus, Call, Reply
from balancer.errors import BalancerError, ModelLoading, NoBackend, NoRoom, UnknownModel
from engines.errors import ModelFileNotFound
from engines.manager.errors import InsufficientMemory
from engines.manager.manager import ModelManager
from engines.manager.states import ModelState, ModelStatus

# What a client is told to wait when nothing better is known, in seconds.
DEFAULT_RETRY = 5.0

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


class LocalBackend:
    """One model's engine in this process. The manager loads it when calls wait for it."""

    def __init__(self, manager: ModelManager, model: str) -> None:
        self._manager = manager
        self._model = model
        self._inflight = 0

    @property
    def name(self) -> str:
        return f"{self._model}/local"

    @property
    def model(self) -> str:
        return self._model

    @property
    def state(self) -> BackendState:
        return _STATES[self._manager.status(self._model).state]

    @property
    def available(self) -> bool:
        return self._manager.can_serve(self._model)

    @property
    def inflight(self) -> int:
        return self._inflight

    def obstacle(self) -> BalancerError | None:
        refusal = self._manager.refusal(self._model)
        if refusal is None:
            return None
        if isinstance(refusal, InsufficientMemory):
            return NoRoom(refusal.message, retry_after=DEFAULT_RETRY)
        retry_after = self._manager.status(self._model).retry_after
        return NoBackend(f"model {self._model} cannot be served: {refusal.message}", retry_after)

    def excuse(self) -> BalancerError | None:
        status = self._manager.status(self._model)
        if status.state is ModelState.LOADING:
            return _loading(status)
        if self.available:
            return None
        return NoRoom(
            f"there is no room for model {self._model} yet: the models that are loaded are in use",
            retry_after=DEFAULT_RETRY,
        )

    def status(self) -> BackendStatus:
        status = self._manager.status(self._model)
        return BackendStatus(
            name=self.name,
            kind="local",
            model=self._model,
            state=_STATES[status.state],
            detail=status.detail,
            progress=status.progress,
            inflight=self._inflight,
            info=status.info,
            stats=status.stats,
            extra={"restarts": status.restarts, "eta_seconds": status.eta_seconds},
        )

    def begin(self, call: Call) -> None:
        self._inflight += 1
        self._manager.hold(self._model, call.keep_alive)

    def end(self) -> None:
        self._inflight -= 1
        self._manager.release(self._model)

    async def run(self, call: Call) -> Reply:
        engine = self._manager.engine(self._model)
        if engine is None:
            detail = self._manager.status(self._model).detail
            raise NoBackend(f"model {self._model} went away: {detail}", retry_after=1.0)
        return await call.run(engine)


class LocalPool:
    """A backend for every model that was ever asked for."""

    def __init__(self, manager: ModelManager) -> None:
        self._manager = manager
        self._backends: dict[str, LocalBackend] = {}

    def backends(self, model: str) -> tuple[LocalBackend, ...]:
        backend = self._backends.get(model)
        if backend is None:
            try:
                self._manager.status(model)
            except ModelFileNotFound as error:
                raise UnknownModel(error.message) from None
            backend = self._backends[model] = LocalBackend(self._manager, model)
        return (backend,)

    def demand(self, models: Iterable[str]) -> None:
        self._manager.demand(models)

    def statuses(self) -> list[BackendStatus]:
        return [self.backends(status.name)[0].status() for status in self._manager.statuses()]


def _loading(status: ModelStatus) -> ModelLoading:
    return ModelLoading(
        f"model {status.name} is still {status.phase or 'loading'} ({100 * status.progress:.0f} %)",
        retry_after=status.eta_seconds or DEFAULT_RETRY,
        state=status.state,
        progress=status.progress,
        eta_seconds=status.eta_seconds,
    )
