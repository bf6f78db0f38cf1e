"""The balancer: gives every call a lease on a backend, a place in the queue, or an error that says why not.

`Balancer.acquire` is the only way in and lists the decisions; `Lease.release` is the only way out. All state
changes happen in synchronous functions on the event loop's thread, so there are no locks.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from balancer.backends.base import Backend, BackendStatus
from balancer.backends.readiness import Arrival, Busy, Coming, Gone, Readiness, Ready
from balancer.call import Call
from balancer.errors import (
    DEFAULT_RETRY,
    BalancerError,
    LoopDetected,
    NoBackend,
    QueueFull,
    UnknownModel,
)
from balancer.foreground import Foreground
from balancer.lease import Lease
from balancer.queue import FRESH, CallQueue, Tried, Waiter, is_tried
from balancer.rates import CompletionRates
from engines.errors import EngineError
from engines.machine.reaction import Reaction

# What a client is told to wait at most, in seconds.
LONGEST_RETRY = 600.0
LOOK_AGAIN = 1.0  # second until a waiting call looks whether its deadline has moved

Asked = Sequence[tuple[Backend, Readiness]]
"""Backends with the readiness that each had at one moment."""


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Limits of the calls that run at once, and of those that wait for each model.

    ``queue_timeout`` is how many seconds a call may wait; while its model is being loaded,
    ``load_timeout`` counts from when that began.
    """

    concurrent: int = 50
    queued: int = 200
    queue_timeout: float = 120.0
    load_timeout: float = 60.0


class Pool(Protocol):
    """The backends of every model."""

    def backends(self, model: str, adapter: str | None = None) -> Sequence[Backend]:
        """The backends of ``model`` that have ``adapter``, at least one, whatever their readiness.

        Raises `UnknownModel`.
        """
        ...

    def select(self, model: str, ready: Sequence[Backend], call: Call) -> Backend | None:
        """One of the ``ready`` backends, by the model's strategy."""
        ...

    def demand(self, models: Iterable[str]) -> None:
        """Load these models, for calls wait for them, in the order of the first call for each."""
        ...

    def statuses(self) -> list[BackendStatus]: ...


class Balancer:
    """The queue and the count of running calls, over the backends of a pool."""

    def __init__(self, limits: QueueLimits, pool: Pool, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._pool = pool
        self._clock = clock
        self._waiting = CallQueue()
        self._running: Counter[str] = Counter()
        self._total = 0
        self._rates = CompletionRates()
        self.foreground = Foreground(clock)
        self.changed = Reaction(self._look_again)

    @property
    def queue_depth(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return self._total

    def ongoing(self, model: str) -> int:
        """Calls for ``model``, or for an adapter by its canonical name, that run or wait."""
        return self._running[model] + self._waiting.of(model)

    def statuses(self) -> list[BackendStatus]:
        return self._pool.statuses()

    def has_other(self, call: Call, tried: Tried) -> bool:
        """Whether a backend that ``call`` has not ``tried`` may take it soon."""
        try:
            return any(_may_take(tried, *each) for each in self._ask(call))
        except (UnknownModel, LoopDetected):  # a backend was removed meanwhile
            return False

    async def acquire(self, call: Call, tried: Tried = FRESH) -> Lease:
        """A lease on a backend of ``call.model`` that the call has not ``tried``; waits within the limits.

        The decisions, each a method of its name:

        1. `_enqueue`: a call joins the queue if others wait already, as it may not overtake them, or if 2 to
           4 give it no lease now. A full queue refuses it, unless it comes back from a backend that failed.
        2. `_choose`: its candidates are the ready backends that it has not tried.
        3. `_refuse`: without a candidate it is refused at once if no backend will become one.
        4. `_grant`: with a candidate, and a place among the calls that may run at once, it gets its lease.
           The model's strategy selects among the candidates.
        5. `_deadline`: so long it waits. Whenever a backend or the queue `changed`, 2 to 4 are asked again.
        6. `_expired`: the error once the deadline has passed.

        Cancelling the wait leaves the queue. Raises `BalancerError`, and `EngineError` for a model that no
        time brings back.
        """
        waiter = Waiter(call, tried, asyncio.get_running_loop().create_future(), self._clock())
        lease = self._place(waiter) if not self._waiting else None
        return lease or await self._wait(waiter)

    def _look_again(self) -> None:
        """Place the calls that can be placed now: a backend, a lease or a waiting call is not what it was."""
        self._serve()
        self._pool.demand(self._demand())

    def _serve(self) -> None:
        """Place the calls of the queue, in order."""
        stuck: set[str] = set()  # models: where one call has to wait, those behind it have to as well
        for waiter in self._waiting:
            model, is_fresh = waiter.call.model, not waiter.tried
            if waiter.granted.done() or (is_fresh and model in stuck):
                continue
            try:
                lease = self._place(waiter)
            except (BalancerError, EngineError) as error:
                waiter.granted.set_exception(error)
            else:
                if lease is not None:
                    waiter.granted.set_result(lease)
                elif is_fresh:
                    stuck.add(model)

    def _demand(self) -> list[str]:
        """The models to load, in the order of the calls that wait for them.

        They end before a call that waits for a place only: making its model go now would bring it back a
        moment later. A call that failed on a backend makes nothing load: it goes to what is there.
        """
        models: dict[str, None] = {}
        for waiter in self._waiting:
            if waiter.granted.done() or waiter.tried or waiter.call.model in models:
                continue
            if any(isinstance(readiness, Ready) for _, readiness in self._ask(waiter.call)):
                break
            models[waiter.call.model] = None
        return list(models)

    # -- the decisions of `acquire` ----------------------------------------------------------------

    def _enqueue(self, waiter: Waiter) -> None:
        """Decision 1. Raises `QueueFull`."""
        model = waiter.call.model
        ahead = self._waiting.of(model)
        if ahead >= self._limits.queued and not waiter.tried:
            raise QueueFull(f"{ahead} requests for {model} are waiting already", self._retry_after(model))
        self._waiting.add(waiter)

    def _place(self, waiter: Waiter) -> Lease | None:
        """Decisions 2 to 4: a lease, or None if waiting for one may help. Raises `BalancerError` if not."""
        asked = self._ask(waiter.call)
        candidates = self._choose(waiter, asked)
        if not candidates:
            self._refuse(waiter, asked)
            return None
        return self._grant(waiter.call, candidates)

    def _ask(self, call: Call) -> Asked:
        """The backends of ``call`` with their readiness. Raises `UnknownModel` and `LoopDetected`."""
        backends = self._pool.backends(call.target.model, call.target.adapter)
        if call.hops and not (backends := [backend for backend in backends if backend.admits(call)]):
            raise LoopDetected(f"{call.model} is only at servers that this request came through, or too far")
        return [(backend, backend.readiness()) for backend in backends]

    def _choose(self, waiter: Waiter, asked: Asked) -> list[Backend]:
        """Decision 2."""
        ready = [backend for backend, readiness in asked if isinstance(readiness, Ready)]
        return [each for each in ready if not is_tried(waiter.tried, each)] if waiter.tried else ready

    def _refuse(self, waiter: Waiter, asked: Asked) -> None:
        """Decision 3: raises `BalancerError` if no backend will become a candidate, else does nothing."""
        if waiter.tried and not any(_may_take(waiter.tried, *each) for each in asked):
            raise NoBackend(f"no other backend of {waiter.call.model} is alive", DEFAULT_RETRY)
        gone = [readiness for _, readiness in asked if isinstance(readiness, Gone)]
        if gone and len(gone) == len(asked):
            # Where any of them may come back, to ask again is worth it.
            raise min((each.explain() for each in gone), key=lambda error: error.is_permanent)

    def _grant(self, call: Call, candidates: Sequence[Backend]) -> Lease | None:
        """Decision 4: None if as many calls run as may run at once."""
        if self._total >= self._limits.concurrent:
            return None
        backend = self._pool.select(call.model, candidates, call)
        assert backend is not None
        self._total += 1
        self._running.update(call.target.counted)
        self.foreground.begin(call)
        return Lease(backend, call, lambda lease: self._released(call, lease), self._clock)

    def _deadline(self, waiter: Waiter) -> float:
        """Decision 5: the clock's time at which the wait ends.

        ``queue_timeout`` counts from the call's arrival. While its model is being loaded and no backend
        serves it, ``load_timeout`` counts instead, from when the call first saw the load.
        """
        answers = [readiness for _, readiness in self._ask(waiter.call)]
        is_served = any(isinstance(answer, Ready | Busy) for answer in answers)
        if is_served or not any(map(_is_starting, answers)):
            waiter.loading_since = None
            return waiter.arrived + self._limits.queue_timeout
        if waiter.loading_since is None:
            waiter.loading_since = self._clock()
        return waiter.loading_since + self._limits.load_timeout

    def _expired(self, call: Call) -> BalancerError:
        """Decision 6: a backend's own reason if none serves, first of one that is coming; else the queue."""
        asked = self._ask(call)
        absent = [readiness for _, readiness in asked if isinstance(readiness, Coming | Gone)]
        if absent and len(absent) == len(asked):
            return min(absent, key=lambda readiness: isinstance(readiness, Gone)).explain()
        return QueueFull(
            f"no slot became free within {self._limits.queue_timeout:g} s", self._retry_after(call.model)
        )

    # -- running and waiting -----------------------------------------------------------------------

    def _released(self, call: Call, lease: Lease) -> None:
        self._total -= 1
        self._running -= Counter(call.target.counted)  # what is none is gone
        self._rates.released(call.model, lease.began, self._clock())
        self.foreground.end(call)
        self.changed()

    async def _wait(self, waiter: Waiter) -> Lease:
        self._enqueue(waiter)
        self.foreground.begin(waiter.call)
        try:
            # A backend may have become free or failed since: the queue decides, in order.
            self.changed()
            return await self._granted(waiter)
        except BaseException:
            waiter.give_back()
            raise
        finally:
            self._waiting.remove(waiter)
            self.foreground.end(waiter.call)
            if not waiter.has_lease:
                self.changed()  # nobody needs to make way for it any more

    async def _granted(self, waiter: Waiter) -> Lease:
        while not waiter.granted.done():
            left = self._deadline(waiter) - self._clock()
            if left <= 0:
                raise self._expired(waiter.call)
            await asyncio.wait((waiter.granted,), timeout=min(left, LOOK_AGAIN))
        return waiter.granted.result()

    def _retry_after(self, model: str) -> float:
        """When a place in the queue should be free, as fast as calls for ``model`` have ended of late."""
        wait = self._rates.wait(model, self._waiting.of(model) + 1, self._clock())
        return DEFAULT_RETRY if wait is None else min(wait, LONGEST_RETRY)


def _may_take(tried: Tried, backend: Backend, readiness: Readiness) -> bool:
    """Whether ``backend`` may take a call that failed on those it ``tried``, without being started for it."""
    match readiness:
        case Ready() | Busy():
            return not is_tried(tried, backend)
        case Coming(arrival):  # as another generation than the one that was tried
            return arrival is not Arrival.ON_DEMAND
        case Gone():
            return False


def _is_starting(readiness: Readiness) -> bool:
    return isinstance(readiness, Coming) and readiness.arrival is Arrival.STARTING
