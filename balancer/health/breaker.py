"""Circuit breaker: keeps calls away from a backend that fails them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Literal

from balancer.rates import RecentCount

BreakerState = Literal["closed", "open", "half_open"]

STREAK = 5  # failures in a row that open it
SPAN = 30.0  # seconds of which the share of failures counts
ENOUGH = 10  # outcomes within them before the share says anything
SHARE = 0.5
FIRST_PAUSE, LONGEST_PAUSE = 30.0, 300.0  # seconds
JITTER = 0.1  # gateways that failed together do not come back together


class Breaker:
    """A circuit breaker (Nygard, "Release It!"; the states and thresholds of resilience4j).

    Opens at 5 failures in a row, or when at least half of at least 10 outcomes in 30 s are failures. It
    stays open for 30 s, twice as long each time up to 300 s (±10 %); then it lets one call at a time through
    as a probe. The probe's success closes it, its failure opens it again. The pause starts over at 30 s once
    it has stayed closed for 300 s, so a backend that only ever manages its probe is asked ever less often.

    Calls that began before it opened have no say any more: they may run for minutes, and must not be taken
    for the probe. So an outcome comes with the number that `on_begin` gave its call.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, rng: random.Random | None = None) -> None:
        self._clock = clock
        self._rng = rng or random.Random()
        self._calls = 0
        self._outdated = 0  # calls up to this number began before it last opened
        self._probe: int | None = None
        self._streak = 0
        self._outcomes = RecentCount(SPAN)
        self._failures = RecentCount(SPAN)
        self._retry_at: float | None = None
        self._openings = 0  # without a long closed time in between
        self._closed_at = clock()

    @property
    def allows(self) -> bool:
        """Whether a call may be sent now."""
        if self._retry_at is None:
            return True
        return self._probe is None and self._clock() >= self._retry_at

    @property
    def state(self) -> BreakerState:
        if self._retry_at is None:
            return "closed"
        return "open" if self._clock() < self._retry_at else "half_open"

    @property
    def retry_at(self) -> float | None:
        """When, by its clock, a probe is or was allowed; None while it is closed."""
        return self._retry_at

    def on_begin(self) -> int:
        """A call is sent: its number. Each call's end is reported once, by one of the three below."""
        probing = self._retry_at is not None and self.allows
        self._calls += 1
        if probing:
            self._probe = self._calls
        return self._calls

    def on_success(self, call: int) -> None:
        if call == self._probe:
            self._close()
        elif self._counts(call):
            self._streak = 0
            self._outcomes.add(self._clock())

    def on_failure(self, call: int) -> None:
        if call == self._probe:
            self._open(self._clock())
        elif self._counts(call):
            self._fail(self._clock())

    def on_ignored(self, call: int) -> None:
        """The call ended without a verdict on the backend: a client's abort, a 4xx, a 429 or 503."""
        if call == self._probe:
            self._probe = None

    def reset(self) -> None:
        """What it watches was started anew: calls that began before say nothing of it."""
        self._outdated = self._calls
        self._openings = 0
        self._close()

    def _counts(self, call: int) -> bool:
        return self._retry_at is None and call > self._outdated

    def _fail(self, now: float) -> None:
        self._streak += 1
        self._outcomes.add(now)
        self._failures.add(now)
        outcomes, failures = self._outcomes.total(now), self._failures.total(now)
        if self._streak >= STREAK or (outcomes >= ENOUGH and failures >= SHARE * outcomes):
            if now - self._closed_at >= LONGEST_PAUSE:
                self._openings = 0
            self._open(now)

    def _open(self, now: float) -> None:
        pause = FIRST_PAUSE
        for _ in range(self._openings):
            pause = min(LONGEST_PAUSE, 2 * pause)
        self._retry_at = now + pause * self._rng.uniform(1 - JITTER, 1 + JITTER)
        self._openings += 1
        self._outdated = self._calls
        self._probe = None

    def _close(self) -> None:
        self._closed_at = self._clock()
        self._retry_at = self._probe = None
        self._streak = 0
        self._outcomes.clear()
        self._failures.clear()
