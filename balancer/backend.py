"""The contract of everything a call can be sent to, and the values that cross it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from balancer.errors import BalancerError
from engines.base import Engine, EngineInfo, EngineStats


class ByteStream(Protocol):
    """The body of a reply. ``close`` is synchronous and idempotent, and frees what produces the bytes."""

    def __aiter__(self) -> ByteStream: ...

    async def __anext__(self) -> bytes: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Reply:
    """An answer on its way out: a status, headers, and bytes as they become ready."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: ByteStream


@dataclass(slots=True)
class Call:
    """A request as the balancer sees it: where it may go, and how to run it there.

    ``run`` serves it on a local engine; ``path`` and ``body`` are what a remote one is sent. So the
    balancer needs no wire schema. ``keep_alive``: how many seconds the model stays loaded after this call
    (-1: for good); None leaves it at what the model has.
    """

    request_id: str
    model: str
    path: str
    body: bytes
    stream: bool
    run: Callable[[Engine], Awaitable[Reply]]
    priority: int = 0
    prefix_key: str | None = None
    keep_alive: float | None = None


class BackendState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """A backend at one moment, for status pages and metrics."""

    name: str
    kind: str
    model: str
    state: BackendState
    detail: str = ""
    progress: float = 0.0
    inflight: int = 0
    info: EngineInfo | None = None
    stats: EngineStats | None = None
    extra: dict[str, Any] = field(default_factory=dict)


class Backend(Protocol):
    """Something the balancer can send a call to."""

    @property
    def name(self) -> str: ...

    @property
    def model(self) -> str: ...

    @property
    def state(self) -> BackendState: ...

    @property
    def available(self) -> bool:
        """Whether a call may be sent here now; callers never reassemble it from parts."""
        ...

    @property
    def inflight(self) -> int: ...

    def obstacle(self) -> BalancerError | None:
        """Why waiting for this backend is of no use now; None if it serves or may do so soon."""
        ...

    def excuse(self) -> BalancerError | None:
        """What a call is told that waited in vain, unless the backend was merely busy."""
        ...

    def status(self) -> BackendStatus: ...

    async def run(self, call: Call) -> Reply: ...

    def begin(self, call: Call) -> None:
        """Count a call in. Only a lease calls this and `end`."""
        ...

    def end(self) -> None: ...


class Pool(Protocol):
    """All backends there are, by model."""

    def backends(self, model: str) -> Sequence[Backend]:
        """Those that could serve ``model``, at least one. Raises `UnknownModel`."""
        ...

    def demand(self, models: Iterable[str]) -> None:
        """Calls wait for these models, in the order of the first call for each."""
        ...

    def statuses(self) -> list[BackendStatus]: ...


class Lease:
    """The right to run one call on one backend. ``release`` is synchronous and idempotent."""

    __slots__ = ("_on_release", "backend")

    def __init__(self, backend: Backend, call: Call, on_release: Callable[[], None]) -> None:
        self.backend = backend
        self._on_release: Callable[[], None] | None = on_release
        backend.begin(call)

    def release(self) -> None:
        on_release, self._on_release = self._on_release, None
        if on_release is not None:
            self.backend.end()
            on_release()
