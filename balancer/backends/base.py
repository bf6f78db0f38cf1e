"""Backends: what a call can be sent to, with their readiness and their statistics."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from balancer.backends.readiness import BUSY, READY, Busy, Coming, Gone, Readiness, Ready
from balancer.call import Call, Reply, ResumePoint
from balancer.errors import NoBackend
from balancer.health.breaker import Breaker
from balancer.policies import PeakEwma
from engines.base import EngineInfo, EngineStats

# Weight of the newest answer in the mean of a backend's answer times.
ANSWER_TIME_SHARE = 0.1


class BackendState(StrEnum):
    """A backend's state, for status pages and metrics. Whether it takes calls is its `Readiness`."""

    STARTING = "starting"
    READY = "ready"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


class Verdict(StrEnum):
    """The judgement of a backend after a call: a client's mistake or abort says nothing."""

    SUCCESS = "success"
    FAILURE = "failure"
    NEUTRAL = "neutral"


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """A backend at one moment, for status pages and metrics. Times in seconds.

    ``models`` that it serves. ``is_replica``: it follows another instance, so no call makes it start.
    ``progress`` (0..1) and ``eta_seconds`` of a load that is under way.
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
    eta_seconds: float | None = None
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

    @property
    def model(self) -> str:
        return ", ".join(self.models)

    @property
    def can_serve(self) -> bool:
        """Whether a call may go there, now or once it is loaded for the call, as replicas never are."""
        if self.state is BackendState.READY:
            return self.breaker != "open"
        return self.state in (BackendState.STOPPED, BackendState.DRAINING) and not self.is_replica

    @property
    def is_broken(self) -> bool:
        """Whether it fails what it should serve."""
        return self.state in (BackendState.UNHEALTHY, BackendState.FAILED) or self.breaker == "open"


class Backend(ABC):
    """A destination of calls, with its counts and its breaker.

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

    def readiness(self) -> Readiness:
        """Whether a call may be sent here now, may wait for it, or neither. Cheap where it is `Ready`."""
        return self._room() if self.state is BackendState.READY else self._absence()

    def _room(self) -> Ready | Busy | Gone:
        """The readiness of a backend whose state is ready: its breaker and its limit decide."""
        if not self.breaker.allows:
            return Gone(self._tripped) if self.breaker.state == "open" else BUSY
        return READY if self.limit is None or self.inflight < self.limit else BUSY

    @abstractmethod
    def _absence(self) -> Coming | Gone:
        """The readiness of a backend in any other state."""

    def _tripped(self) -> NoBackend:
        """The error for calls that the open breaker keeps away."""
        retry_at = self.breaker.retry_at or 0.0
        return NoBackend(f"{self.name} failed too often of late", max(1.0, retry_at - self._clock()))

    @abstractmethod
    def serves(self, model: str) -> bool: ...

    @abstractmethod
    async def run(self, call: Call, resume_point: ResumePoint | None = None) -> Reply:
        """Serve ``call``. Raises `BackendFailed` if there is no answer, or an engine's `EngineError`."""

    @abstractmethod
    def status(self) -> BackendStatus: ...

    def admits(self, call: Call) -> bool:
        """Whether ``call`` may be sent here, whatever way it came."""
        return True

    def begin(self, call: Call) -> int:
        """Count a call in; the number is its ticket for `end`. Only a lease calls the two."""
        self.inflight += 1
        self.requests += 1
        return self.breaker.on_begin()

    def end(self, ticket: int, outcome: Verdict, seconds: float) -> None:
        """Count a call out, ``seconds`` after it began."""
        self.inflight -= 1
        if outcome is Verdict.SUCCESS:
            self.successes += 1
            before = seconds if self.answer_time is None else self.answer_time
            self.answer_time = before + ANSWER_TIME_SHARE * (seconds - before)
            self.breaker.on_success(ticket)
        elif outcome is Verdict.FAILURE:
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
            "ttft_ewma": self._ttft.last,
            "breaker": self.breaker.state,
        }
