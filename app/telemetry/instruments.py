"""Counters and histograms of the token path. Used on the event loop's thread only, hence without locks.

A histogram of `prometheus_client` takes two locks and walks its buckets for every value; with one value
a token that shows in a profile. These hold plain numbers, which the collector reads when scraped.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence


class Histogram:
    """Counts of values up to each bound (in seconds here), and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    @property
    def count(self) -> int:
        return sum(self.counts)

    @property
    def mean(self) -> float | None:
        count = self.count
        return self.sum / count if count else None

    def quantile(self, q: float) -> float | None:
        """The value below which a share ``q`` lies, linear inside its bucket; None without values.

        Values above the last bound count as that bound: a histogram knows no more.
        """
        rank = q * self.count
        if not rank:
            return None
        below, lower = 0, 0.0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            if below + count >= rank:
                return lower + (bound - lower) * (rank - below) / count
            below, lower = below + count, bound
        return lower


def merged(bounds: Sequence[float], parts: Iterable[Histogram]) -> Histogram:
    """One histogram of all values in ``parts``, which have the same ``bounds``."""
    whole = Histogram(bounds)
    for part in parts:
        whole.counts = [a + b for a, b in zip(whole.counts, part.counts, strict=True)]
        whole.sum += part.sum
    return whole


class RecentRate:
    """A rate a second, over the last ``window`` whole seconds: one count for each of them."""

    __slots__ = ("_clock", "_counts", "_now", "_started")

    def __init__(self, clock: Callable[[], float], window: int = 60) -> None:
        self._clock = clock
        self._counts = [0] * window
        self._started = self._now = int(clock())

    def add(self, amount: int) -> None:
        self._advance()
        self._counts[self._now % len(self._counts)] += amount

    def per_second(self) -> float:
        """The rate since the window began, or since the start where that is later."""
        self._advance()
        age = min(self._now - self._started + 1, len(self._counts))
        return sum(self._counts) / age

    def _advance(self) -> None:
        now = int(self._clock())
        if now == self._now:
            return
        window = len(self._counts)
        for second in range(max(self._now + 1, now - window + 1), now + 1):
            self._counts[second % window] = 0
        self._now = now
