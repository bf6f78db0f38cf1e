"""The calls that wait for a backend, in the order in which they are served."""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from balancer.backends.base import Backend
from balancer.call import Call
from balancer.lease import Lease

Tried = Mapping[str, int]
"""The generation of each backend, by name, that a call failed on."""

FRESH: Tried = {}


def is_tried(tried: Tried, backend: Backend) -> bool:
    """Whether a call failed on the present generation of ``backend``."""
    return bool(tried) and tried.get(backend.name) == backend.generation


@dataclass(eq=False, slots=True)
class Waiter:
    """A call in the queue.

    ``arrived`` and ``loading_since``, when it first saw its model being loaded, are the clock's times.
    """

    call: Call
    tried: Tried
    granted: asyncio.Future[Lease]
    arrived: float
    order: tuple[int, bool, int] = field(default=(0, False, 0))
    loading_since: float | None = None

    @property
    def has_lease(self) -> bool:
        granted = self.granted
        return granted.done() and not granted.cancelled() and granted.exception() is None

    def give_back(self) -> None:
        """Release the lease, if one was granted in the very turn of the loop in which the call left."""
        if self.has_lease:
            self.granted.result().release()
        else:
            self.granted.cancel()


class CallQueue:
    """Calls by priority (lower first), then those tried again, as they waited before, then by arrival."""

    def __init__(self) -> None:
        self._waiters: list[Waiter] = []
        self._by_model: Counter[str] = Counter()
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._waiters)

    def __iter__(self) -> Iterator[Waiter]:
        """The waiters of this moment: the queue may change during the iteration."""
        return iter(tuple(self._waiters))

    def of(self, model: str) -> int:
        """How many calls for ``model``, or for an adapter by its canonical name, wait."""
        return self._by_model[model]

    def add(self, waiter: Waiter) -> None:
        self._arrivals += 1
        waiter.order = (waiter.call.priority, not waiter.tried, self._arrivals)
        insort(self._waiters, waiter, key=lambda each: each.order)
        self._by_model.update(waiter.call.target.counted)

    def remove(self, waiter: Waiter) -> None:
        self._waiters.remove(waiter)
        for name in waiter.call.target.counted:
            self._by_model[name] -= 1
            if not self._by_model[name]:
                del self._by_model[name]
