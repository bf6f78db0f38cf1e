"""What a call can be sent to, and the values that cross between the balancer and it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from balancer.breaker import Breaker
from balancer.errors import BalancerError, NoBackend
from balancer.policies import PeakEwma
from engines.base import Engine, EngineInfo, EngineStats, Usage

# Weight of the newest answer in the mean of a backend's answer times.
ANSWER_TIME_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Continuation:
    """Where an answer that broke off goes on: the tokens generated so far, and when it was created (Unix)."""

    token_ids: tuple[int, ...]
    created: int


class ByteStream(Protocol):
    """The body of a reply.

    ``close`` is synchronous and idempotent, and frees what produces the bytes. Iteration raises
    `EngineError` or `BackendFailed` if the body broke off.
    """

    def __aiter__(self) -> ByteStream: ...

    async def __anext__(self) -> bytes: ...

    def close(self) -> None: ...

    def continuation(self) -> Continuation | None:
        """What another backend needs to go on where this body is now; None if nobody can."""
        ...

    def usage(self) -> Usage | None:
        """Tokens, as a relayed body told them; None if it did not, or if its maker keeps the record."""
        ...


@dataclass(slots=True)
class Reply:
    """An answer on its way out: a status, headers, and bytes as they become ready."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: ByteStream


Run = Callable[[Engine, Continuation | None], Awaitable[Reply]]


@dataclass(slots=True)
class Call:
    """A request as the balancer sees it: where it may go, and how to run it there.

    ``run`` serves it on an engine of this process, from a `Continuation` if it was begun elsewhere; ``path``,
    ``headers`` and ``body`` are what a remote one is sent. So the balancer needs no wire schema.
    ``resumable``: another backend may go on with its stream. ``conversation`` gives the text whose
    beginning decides what a prefix cache is worth. Calls of lower ``priority`` are served first.
    ``keep_alive``: how many seconds the model stays loaded after this call (-1: for good); None leaves
    it at what the model has.
    """

    request_id: str
    model: str
    path: str
    body: bytes
    stream: bool
    run: Run | None = None
    headers: Sequence[tuple[bytes, bytes]] = ()
    resumable: bool = False
    priority: int = 0
    conversation: Callable[[], str] | None = None
    keep_alive: float | None = None


class BackendState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


class Outcome(StrEnum):
    """How a call ended, as far as its backend is concerned: a client's mistake or abort says nothing."""

    SUCCESS = "success"
    FAILURE = "failure"
    NEUTRAL = "neutral"


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """A backend at one moment, for status pages and metrics. Times in seconds.

    ``models`` that it serves. ``is_replica``: it follows another instance, so no call makes it start.
    ``success_rate`` of the calls that succeeded or failed, 0..1. ``cpu_percent`` (100 is one core) is
    a child process's; ``memory_mb`` what is resident of one, or else what an engine of this process takes.
    """

    name: str
    kind: str
    models: tuple[str, ...]
    state: BackendState
    is_replica: bool = False
    detail: str = ""
    progress: float = 0.0
    weight: float = 1.0
    inflight: int = 0
    requests: int = 0
    successes: int = 0
    failures: int = 0
    success_rate: float | None = None
    avg_response_time: float | None = None
    ttft_ewma: float | None = None
    breaker: str = "closed"
    url: str | None = None
    port: int | None = None
    pid: int | None = None
    cpu_percent: float | None = None
    memory_mb: float | None = None
    restarts: int = 0
    info: EngineInfo | None = None
    stats: EngineStats | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> str:
        return ", ".join(self.models)


class Backend(ABC):
    """Something the balancer can send calls to, and what is known of how it fares.

    ``weight`` is its share of the calls relative to others; ``limit`` the most calls at once (None: no
    limit). ``inflight`` counts calls from the moment they are given here until their body ended.
    """

    kind: str
    # Whether this server starts and stops it.
    is_managed = False

    def __init__(
        self,
        name: str,
        *,
        weight: float = 1.0,
        limit: int | None = None,
        breaker: Breaker | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.weight = weight
        self.limit = limit
        self.breaker = breaker or Breaker(clock=clock)
        self.inflight = 0
        self.requests = 0
        self.successes = 0
        self.failures = 0
        self.answer_time: float | None = None
        self._clock = clock
        # Seconds, peak-EWMA, as of the last answer or `refresh`. Plain, as policies read it of everyone.
        self.ttft: float | None = None
        self._ttft = PeakEwma()

    @property
    @abstractmethod
    def state(self) -> BackendState: ...

    @property
    def generation(self) -> int:
        """Grows whenever the backend is started anew: what failed on one generation may work on the next."""
        return 0

    @property
    def available(self) -> bool:
        """Whether a call may be sent here now; callers never reassemble it from parts."""
        return (
            self.state is BackendState.READY
            and (self.limit is None or self.inflight < self.limit)
            and self.breaker.allows
        )

    @abstractmethod
    def serves(self, model: str) -> bool: ...

    @abstractmethod
    def obstacle(self) -> BalancerError | None:
        """Why waiting for this backend is of no use now; None if it serves or may do so soon."""

    def tripped(self) -> BalancerError | None:
        """What a call is told while the breaker keeps calls away; None while it does not."""
        retry_at = self.breaker.retry_at
        if self.state is not BackendState.READY or self.breaker.state != "open" or retry_at is None:
            return None
        return NoBackend(f"{self.name} failed too often of late", max(1.0, retry_at - self._clock()))

    @abstractmethod
    def excuse(self) -> BalancerError | None:
        """What a call is told that waited in vain, unless the backend was merely busy."""

    @abstractmethod
    async def run(self, call: Call, continuation: Continuation | None = None) -> Reply:
        """Serve ``call``. Raises `BackendFailed` if there is no answer, or an engine's `EngineError`."""

    @abstractmethod
    def status(self) -> BackendStatus: ...

    def begin(self, call: Call) -> int:
        """Count a call in; the number is its ticket for `end`. Only a lease calls the two."""
        self.inflight += 1
        self.requests += 1
        return self.breaker.on_begin()

    def end(self, ticket: int, outcome: Outcome, seconds: float) -> None:
        """Count a call out, ``seconds`` after it began."""
        self.inflight -= 1
        if outcome is Outcome.SUCCESS:
            self.successes += 1
            before = seconds if self.answer_time is None else self.answer_time
            self.answer_time = before + ANSWER_TIME_SHARE * (seconds - before)
            self.breaker.on_success(ticket)
        elif outcome is Outcome.FAILURE:
            self.failures += 1
            self.breaker.on_failure(ticket)
            self.suspect()
        else:
            self.breaker.on_ignored(ticket)

    def first_token(self, seconds: float) -> None:
        """A call's first bytes came ``seconds`` after it was sent here."""
        self._ttft.observe(seconds, self._clock())
        self.refresh()

    def refresh(self) -> None:
        """Let what is known fade; to be called every second or so."""
        self.ttft = self._ttft.value(self._clock())

    @abstractmethod
    def suspect(self) -> None:
        """A call failed here: whoever watches the backend's health should look now."""

    def figures(self) -> dict[str, Any]:
        """The fields of `status` that every backend has."""
        judged = self.successes + self.failures
        return {
            "name": self.name,
            "kind": self.kind,
            "state": self.state,
            "weight": self.weight,
            "inflight": self.inflight,
            "requests": self.requests,
            "successes": self.successes,
            "failures": self.failures,
            "success_rate": self.successes / judged if judged else None,
            "avg_response_time": self.answer_time,
            "ttft_ewma": self.ttft,
            "breaker": self.breaker.state,
        }


class Pool(Protocol):
    """All backends there are, by model."""

    def backends(self, model: str) -> Sequence[Backend]:
        """Those that could serve ``model``, at least one. Raises `UnknownModel`."""
        ...

    def select(self, model: str, available: Sequence[Backend], call: Call) -> Backend | None:
        """One of ``available`` by the model's strategy."""
        ...

    def demand(self, models: Iterable[str]) -> None:
        """Calls wait for these models, in the order of the first call for each."""
        ...

    def statuses(self) -> list[BackendStatus]: ...


class Lease:
    """The right to run one call on one backend. ``release`` is synchronous and idempotent."""

    __slots__ = ("_clock", "_on_release", "_ticket", "backend", "began", "generation")

    def __init__(
        self,
        backend: Backend,
        call: Call,
        on_release: Callable[[Lease], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.backend = backend
        self.generation = backend.generation
        self.began = clock()
        self._clock = clock
        self._on_release: Callable[[Lease], None] | None = on_release
        self._ticket = backend.begin(call)

    def release(self, outcome: Outcome = Outcome.NEUTRAL) -> None:
        on_release, self._on_release = self._on_release, None
        if on_release is not None:
            self.backend.end(self._ticket, outcome, self.age)
            on_release(self)

    @property
    def age(self) -> float:
        """Seconds since it was granted."""
        return self._clock() - self.began
