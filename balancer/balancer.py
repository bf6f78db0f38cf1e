"""Gives every call a backend, or a place in the queue, or a reason why not.

`acquire` is the only way in and `Lease.release` the only way out; all state changes happen in
synchronous functions on the event loop's thread, so there are no locks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from balancer.backend import Backend, BackendState, BackendStatus, Call, Lease
from balancer.errors import BalancerError, ModelLoading, NoBackend, QueueFull, UnknownModel

# What a client is told to wait when nothing better is known, in seconds.
DEFAULT_RETRY = 5.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How many calls run and wait at once, and for how many seconds one may wait."""

    concurrent: int = 50
    queued: int = 200
    queue_timeout: float = 120.0
    load_timeout: float = 60.0


@dataclass(eq=False, slots=True)
class _Waiter:
    call: Call
    granted: asyncio.Future[Lease]


class Balancer:
    """Owns the queue and the count of running calls, over the backends it is given."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._backends: list[Backend] = []
        self._waiting: deque[_Waiter] = deque()
        self._running = 0

    @property
    def queue_depth(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return self._running

    def add(self, backend: Backend) -> None:
        self._backends.append(backend)

    def statuses(self) -> list[BackendStatus]:
        return [backend.status() for backend in self._backends]

    async def acquire(self, call: Call) -> Lease:
        """A lease on an available backend of ``call.model``; waits for one within the limits.

        Cancelling the wait leaves the queue. Raises `UnknownModel`, `QueueFull`, `NoBackend` or
        `ModelLoading`.
        """
        lease = self._grant(call) if not self._waiting else None
        return lease or await self._wait(call)

    def changed(self) -> None:
        """A backend's state changed or a lease came back: serve who can be served now."""
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

    def _grant(self, call: Call) -> Lease | None:
        """A lease if one can be had now, None if waiting may help; raises if it cannot."""
        backends = [b for b in self._backends if b.model == call.model]
        if not backends:
            raise UnknownModel(f"model {call.model!r} is not served here")
        if all(b.state in _DEAD for b in backends):
            details = "; ".join(b.status().detail for b in backends)
            raise NoBackend(f"model {call.model} cannot be served: {details}", retry_after=DEFAULT_RETRY)
        available = [b for b in backends if b.available]
        if self._running >= self._limits.concurrent or not available:
            return None
        self._running += 1
        return Lease(min(available, key=lambda b: b.inflight), self._released)

    def _released(self) -> None:
        self._running -= 1
        self.changed()

    async def _wait(self, call: Call) -> Lease:
        if len(self._waiting) >= self._limits.queued:
            raise QueueFull(
                f"{len(self._waiting)} requests are waiting already", retry_after=self._retry_after()
            )
        waiter = _Waiter(call, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        try:
            # A backend may have become free or failed since: the queue decides, in order.
            self.changed()
            async with asyncio.timeout(self._patience(call)):
                return await waiter.granted
        except TimeoutError:
            _give_back(waiter)
            raise self._expired(call) from None
        except asyncio.CancelledError:
            _give_back(waiter)
            raise
        finally:
            self._waiting.remove(waiter)

    def _patience(self, call: Call) -> float:
        return self._limits.load_timeout if self._loading(call) else self._limits.queue_timeout

    def _loading(self, call: Call) -> Sequence[Backend]:
        mine = [b for b in self._backends if b.model == call.model]
        return mine if mine and not any(b.available for b in mine) else ()

    def _expired(self, call: Call) -> BalancerError:
        for backend in self._loading(call):
            status = backend.status()
            eta = status.extra.get("eta_seconds")
            return ModelLoading(
                f"model {call.model} is still loading ({100 * status.progress:.0f} %)",
                retry_after=eta or DEFAULT_RETRY,
                state=status.state,
                progress=status.progress,
                eta_seconds=eta,
            )
        return QueueFull(
            f"no slot became free within {self._limits.queue_timeout:g} s", retry_after=self._retry_after()
        )

    def _retry_after(self) -> float:
        return DEFAULT_RETRY


_DEAD = frozenset({BackendState.FAILED, BackendState.STOPPED, BackendState.DRAINING})


def _give_back(waiter: _Waiter) -> None:
    """The lease may have been granted in the very turn in which its waiter left."""
    granted = waiter.granted
    if granted.done() and not granted.cancelled() and granted.exception() is None:
        granted.result().release()
