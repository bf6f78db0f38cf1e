"""The retry budget and the backoff: how often and how soon a call may be tried again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from balancer.rates import RecentCount


class RetryBudget:
    """A budget for retries: a share of the calls of the last seconds, and a few more for quiet hours.

    When everything fails, retries so add a fifth to the load and do not multiply it (Finagle's RetryBudget,
    "retry budgets" in Google's SRE book).
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        share: float = 0.2,
        minimum: int = 10,
        span: float = 10.0,
    ) -> None:
        """``minimum`` retries are allowed in each ``span`` seconds beyond ``share`` of the calls."""
        self._clock = clock
        self._share = share
        self._minimum = minimum
        self._calls = RecentCount(span)
        self._retries = RecentCount(span)

    def note_call(self) -> None:
        """Count a call that arrived. Its retries are not calls."""
        self._calls.add(self._clock())

    def take(self) -> bool:
        """Whether one retry may be sent; if so it counts as sent."""
        now = self._clock()
        if self._retries.total(now) + 1 > self._minimum + self._share * self._calls.total(now):
            return False
        self._retries.add(now)
        return True


def backoff(attempt: int, rng: random.Random, base: float = 0.05, cap: float = 1.0) -> float:
    """Seconds before retry ``attempt`` (0 is the first): anything up to ``base`` · 2^attempt, or ``cap``.

    Full jitter: clients that failed together do not come back together ("Exponential Backoff And Jitter",
    AWS Architecture Blog, 2015).
    """
    return rng.uniform(0.0, min(cap, base * 2**attempt))
