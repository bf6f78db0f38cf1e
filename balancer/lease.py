"""A lease: the right to run one call on one backend."""

from __future__ import annotations

import time
from collections.abc import Callable

from balancer.backends.base import Backend, Verdict
from balancer.call import Call


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

    def release(self, outcome: Verdict = Verdict.NEUTRAL) -> None:
        on_release, self._on_release = self._on_release, None
        if on_release is not None:
            self.backend.end(self._ticket, outcome, self.age)
            on_release(self)

    @property
    def age(self) -> float:
        """Seconds since it was granted."""
        return self._clock() - self.began
