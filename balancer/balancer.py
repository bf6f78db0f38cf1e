"""Gives every call a backend, or a place in the queue, or a reason why not.

`acquire` is the only way in and `Lease.release` the only way out; all state changes happen in
synchronous functions on the event loop's thread, so there are no locks.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from balancer.backends.base import Backend, BackendState, BackendStatus
from balancer.call import Call
from balancer.errors import DEFAULT_RETRY, BalancerError, NoBackend, QueueFull, UnknownModel
from balancer.lease import Lease
from balancer.queue import FRESH, CallQueue, Tried, Waiter, is_tried
from balancer.rates import CompletionRate

# What a client is told to wait at most, in seconds.
LONGEST_RETRY = 600.0
# How often, in seconds, a waiting call looks at whether its patience has changed.
LOOK_AGAIN = 1.0


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How many calls run at once, and how many wait for each model.

    ``queue_timeout`` is how many seconds a call may wait; while its model is being loaded,
    ``load_timeout`` counts from when that began.
    """

    concurrent: int = 50
    queued: int = 200
    queue_timeout: float = 120.0
    load_timeout: float = 60.0


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


class Balancer:
    """Owns the queue and the count of running calls, over the backends of a pool."""

    def __init__(self, limits: QueueLimits, pool: Pool, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._pool = pool
        self._clock = clock
        self._waiting = CallQueue()
        self._running: Counter[str] = Counter()
        self._total = 0
        self._rates: dict[str, CompletionRate] = {}
        self._serving = self._serve_again = False

    @property
    def queue_depth(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return self._total

    def ongoing(self, model: str) -> int:
        """Calls for ``model`` that run or wait."""
        return self._running[model] + self._waiting.of(model)

    def statuses(self) -> list[BackendStatus]:
        return self._pool.statuses()

    def has_other(self, call: Call, tried: Tried) -> bool:
        """Whether a backend that ``call`` has not ``tried`` may take it soon."""
        try:
            backends = self._pool.backends(call.model)
        except UnknownModel:  # it was removed meanwhile
            return False
        return any(_may_come(tried, backend) for backend in backends)

    async def acquire(self, call: Call, tried: Tried = FRESH) -> Lease:
        """A lease on an available backend of ``call.model``; waits for one within the limits.

        Never one that the call has ``tried``. Cancelling the wait leaves the queue. Raises `BalancerError`.
        """
        waiter = Waiter(call, tried, asyncio.get_running_loop().create_future(), self._clock())
        lease = self._grant(waiter) if not self._waiting else None
        return lease or await self._wait(waiter)

    def changed(self) -> None:
        """A backend's state changed, a lease came back or a call left: serve who can be served now."""
        self._serve_again = True
        if self._serving:
            return
        self._serving = True
        try:
            while self._serve_again:
                self._serve_again = False
                self._serve()
                self._pool.demand(self._demand())
        finally:
            self._serving = False

    def _serve(self) -> None:
        """Grant what can be granted, in order."""
        stuck: set[str] = set()  # where one call has to wait, those behind it have to as well
        for waiter in self._waiting:
            model, is_fresh = waiter.call.model, not waiter.tried
            if waiter.granted.done() or (is_fresh and model in stuck):
                continue
            try:
                lease = self._grant(waiter)
            except BalancerError as error:
                waiter.granted.set_exception(error)
            else:
                if lease is not None:
                    waiter.granted.set_result(lease)
                elif is_fresh:
                    stuck.add(model)

    def _demand(self) -> list[str]:
        """Models that calls wait for, as far as nobody waits in front of them for a place only.

        A call that failed somewhere makes nothing load: it goes where there is something already.
        """
        models: dict[str, None] = {}
        for waiter in self._waiting:
            if waiter.granted.done() or waiter.tried or waiter.call.model in models:
                continue
            if any(backend.available for backend in self._pool.backends(waiter.call.model)):
                break
            models[waiter.call.model] = None
        return list(models)

    def _grant(self, waiter: Waiter) -> Lease | None:
        """A lease if one can be had now, None if waiting may help; raises if it cannot."""
        call = waiter.call
        backends = self._pool.backends(call.model)
        available = [b for b in backends if b.available and not is_tried(waiter.tried, b)]
        if not available:
            self._check_hope(waiter, backends)
            return None
        if self._total >= self._limits.concurrent:
            return None
        backend = self._pool.select(call.model, available, call)
        assert backend is not None
        self._total += 1
        self._running[call.model] += 1
        return Lease(backend, call, lambda lease: self._released(call.model, lease), self._clock)

    def _check_hope(self, waiter: Waiter, backends: Sequence[Backend]) -> None:
        """Raise `BalancerError` if no backend will serve the call soon."""
        if waiter.tried and not any(_may_come(waiter.tried, backend) for backend in backends):
            raise NoBackend(f"no other backend of {waiter.call.model} is alive", DEFAULT_RETRY)
        obstacles = [_obstacle(backend) for backend in backends]
        if obstacles and all(obstacles):
            raise next(filter(None, obstacles))

    def _released(self, model: str, lease: Lease) -> None:
        self._total -= 1
        self._running[model] -= 1
        if not self._running[model]:
            del self._running[model]
        rate = self._rates.get(model)
        if rate is None:
            rate = self._rates[model] = CompletionRate()
        rate.released(lease.began, self._clock())
        self.changed()

    async def _wait(self, waiter: Waiter) -> Lease:
        model = waiter.call.model
        ahead = self._waiting.of(model)
        if ahead >= self._limits.queued and not waiter.tried:
            raise QueueFull(
                f"{ahead} requests for {model} are waiting already", retry_after=self._retry_after(model)
            )
        self._waiting.add(waiter)
        try:
            # A backend may have become free or failed since: the queue decides, in order.
            self.changed()
            return await self._granted(waiter)
        except BaseException:
            waiter.give_back()
            raise
        finally:
            self._waiting.remove(waiter)
            if not waiter.has_lease:
                self.changed()  # nobody needs to make way for it any more

    async def _granted(self, waiter: Waiter) -> Lease:
        while not waiter.granted.done():
            left = self._deadline(waiter) - self._clock()
            if left <= 0:
                raise self._expired(waiter.call)
            await asyncio.wait((waiter.granted,), timeout=min(left, LOOK_AGAIN))
        return waiter.granted.result()

    def _deadline(self, waiter: Waiter) -> float:
        states = {backend.state for backend in self._pool.backends(waiter.call.model)}
        if BackendState.READY in states or BackendState.STARTING not in states:
            waiter.loading_since = None
            return waiter.arrived + self._limits.queue_timeout
        if waiter.loading_since is None:
            waiter.loading_since = self._clock()
        return waiter.loading_since + self._limits.load_timeout

    def _expired(self, call: Call) -> BalancerError:
        backends = self._pool.backends(call.model)
        if not any(backend.state is BackendState.READY for backend in backends):
            for backend in backends:
                excuse = backend.excuse()
                if excuse is not None:
                    return excuse
        return QueueFull(
            f"no slot became free within {self._limits.queue_timeout:g} s",
            retry_after=self._retry_after(call.model),
        )

    def _retry_after(self, model: str) -> float:
        """When a place in the queue should be free, as fast as calls for ``model`` have ended of late."""
        rate = self._rates.get(model)
        wait = None if rate is None else rate.wait(self._waiting.of(model) + 1, self._clock())
        return DEFAULT_RETRY if wait is None else min(wait, LONGEST_RETRY)


def _may_come(tried: Tried, backend: Backend) -> bool:
    """Whether ``backend`` may take a call that failed elsewhere, without being started for it."""
    if backend.state in (BackendState.STARTING, BackendState.FAILED):
        return backend.obstacle() is None  # it comes back as another generation
    live = backend.state in (BackendState.READY, BackendState.UNHEALTHY)
    return live and not is_tried(tried, backend) and _obstacle(backend) is None


def _obstacle(backend: Backend) -> BalancerError | None:
    return backend.obstacle() or backend.tripped()
