"""Gives every call a backend, or a place in the queue, or a reason why not.

`acquire` is the only way in and `Lease.release` the only way out; all state changes happen in
synchronous functions on the event loop's thread, so there are no locks.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass

from balancer.backend import Backend, BackendState, BackendStatus, Call, Lease, Pool
from balancer.errors import BalancerError, QueueFull

# What a client is told to wait when nothing better is known, in seconds.
DEFAULT_RETRY = 5.0
# How often, in seconds, a waiting call looks at whether its patience has changed.
LOOK_AGAIN = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How many calls run and wait at once.

    ``queue_timeout`` is how many seconds a call may wait; while its model is being loaded,
    ``load_timeout`` counts from when that began.
    """

    concurrent: int = 50
    queued: int = 200
    queue_timeout: float = 120.0
    load_timeout: float = 60.0


@dataclass(eq=False, slots=True)
class _Waiter:
    call: Call
    granted: asyncio.Future[Lease]
    arrived: float
    loading_since: float | None = None


class Balancer:
    """Owns the queue and the count of running calls, over the backends of a pool."""

    def __init__(self, limits: Limits, pool: Pool) -> None:
        self._limits = limits
        self._pool = pool
        self._waiting: deque[_Waiter] = deque()
        self._running = 0
        self._serving = self._serve_again = False

    @property
    def queue_depth(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return self._running

    def statuses(self) -> list[BackendStatus]:
        return self._pool.statuses()

    async def acquire(self, call: Call) -> Lease:
        """A lease on an available backend of ``call.model``; waits for one within the limits.

        Cancelling the wait leaves the queue. Raises `BalancerError`.
        """
        lease = self._grant(call) if not self._waiting else None
        return lease or await self._wait(call)

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
        """Grant what can be granted, in order of arrival."""
        for waiter in list(self._waiting):
            if waiter.granted.done():
                continue
            try:
                lease = self._grant(waiter.call)
            except BalancerError as error:
                waiter.granted.set_exception(error)
            else:
                if lease is not None:
                    waiter.granted.set_result(lease)

    def _demand(self) -> list[str]:
        """Models that calls wait for, as far as nobody waits in front of them for a place only."""
        models: dict[str, None] = {}
        for waiter in self._waiting:
            if waiter.granted.done():
                continue
            if any(backend.available for backend in self._pool.backends(waiter.call.model)):
                break
            models[waiter.call.model] = None
        return list(models)

    def _grant(self, call: Call) -> Lease | None:
        """A lease if one can be had now, None if waiting may help; raises if it cannot."""
        backends = self._pool.backends(call.model)
        available = [b for b in backends if b.available]
        if not available:
            obstacles = [b.obstacle() for b in backends]
            if obstacles and all(obstacles):
                raise next(filter(None, obstacles))
            return None
        if self._running >= self._limits.concurrent:
            return None
        self._running += 1
        return Lease(min(available, key=_load), call, self._released)

    def _released(self) -> None:
        self._running -= 1
        self.changed()

    async def _wait(self, call: Call) -> Lease:
        if len(self._waiting) >= self._limits.queued:
            raise QueueFull(
                f"{len(self._waiting)} requests are waiting already", retry_after=self._retry_after()
            )
        waiter = _Waiter(call, asyncio.get_running_loop().create_future(), time.monotonic())
        self._waiting.append(waiter)
        try:
            # A backend may have become free or failed since: the queue decides, in order.
            self.changed()
            return await self._granted(waiter)
        except BaseException:
            _give_back(waiter)
            raise
        finally:
            self._waiting.remove(waiter)
            if not _has_lease(waiter):
                self.changed()  # nobody needs to make way for it any more

    async def _granted(self, waiter: _Waiter) -> Lease:
        while not waiter.granted.done():
            left = self._deadline(waiter) - time.monotonic()
            if left <= 0:
                raise self._expired(waiter.call)
            await asyncio.wait((waiter.granted,), timeout=min(left, LOOK_AGAIN))
        return waiter.granted.result()

    def _deadline(self, waiter: _Waiter) -> float:
        if not any(b.state is BackendState.STARTING for b in self._pool.backends(waiter.call.model)):
            waiter.loading_since = None
            return waiter.arrived + self._limits.queue_timeout
        if waiter.loading_since is None:
            waiter.loading_since = time.monotonic()
        return waiter.loading_since + self._limits.load_timeout

    def _expired(self, call: Call) -> BalancerError:
        for backend in self._pool.backends(call.model):
            excuse = backend.excuse()
            if excuse is not None:
                return excuse
        return QueueFull(
            f"no slot became free within {self._limits.queue_timeout:g} s", retry_after=self._retry_after()
        )

    def _retry_after(self) -> float:
        return DEFAULT_RETRY


def _load(backend: Backend) -> int:
    return backend.inflight


def _has_lease(waiter: _Waiter) -> bool:
    granted = waiter.granted
    return granted.done() and not granted.cancelled() and granted.exception() is None


def _give_back(waiter: _Waiter) -> None:
    """The lease may have been granted in the very turn in which its waiter left."""
    if _has_lease(waiter):
        waiter.granted.result().release()
    else:
        waiter.granted.cancel()
