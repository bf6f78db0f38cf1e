"""Rates of recent events, and the wait in a queue that follows from them."""

from __future__ import annotations

from collections import deque


class RecentCount:
    """A count of the events of the last ``span`` seconds, to within a twentieth of the span.

    It counts by slices of time, so that memory does not grow with the events (the windowed counters of
    Finagle and Hystrix). All times are of one clock that never goes back.
    """

    SLICES = 20

    def __init__(self, span: float) -> None:
        self._slice = span / self.SLICES
        self._counts: deque[tuple[int, int]] = deque()  # (slice, events in it), oldest first
        self._total = 0

    def add(self, now: float) -> None:
        self._drop_old(now)
        current = int(now // self._slice)
        count = self._counts.pop()[1] if self._counts and self._counts[-1][0] == current else 0
        self._counts.append((current, count + 1))
        self._total += 1

    def total(self, now: float) -> int:
        self._drop_old(now)
        return self._total

    def clear(self) -> None:
        self._counts.clear()
        self._total = 0

    def _drop_old(self, now: float) -> None:
        oldest = int(now // self._slice) - self.SLICES
        while self._counts and self._counts[0][0] <= oldest:
            self._total -= self._counts.popleft()[1]


class CompletionRate:
    """The rate at which one model's calls end, and the wait in its queue that follows from it.

    By Little's law the wait at a position is that position over the rate at which places become free. Calls
    count as samples for a minute, the last `SAMPLES` of them. They are set against the time in which they
    ran: a rate over a fixed minute would be too low after a quiet hour, and one over the gaps between them
    too high when a batch ends at once.
    """

    SPAN = 60.0
    SAMPLES = 64
    # Seconds that samples are set against at the least: one call that failed at once promises nothing.
    LEAST = 1.0

    def __init__(self) -> None:
        self._calls: deque[tuple[float, float]] = deque()  # (released, began), oldest first
        self._dropped = float("-inf")  # when the newest call that is no longer a sample was released

    def released(self, began: float, now: float) -> None:
        """Count a call that began on a backend at ``began`` and has freed its place, however it ended."""
        self._calls.append((now, began))
        self._drop_old(now)

    def wait(self, position: int, now: float) -> float | None:
        """Seconds until the call at ``position`` of the queue (1 is the next) is served; None if unknown."""
        self._drop_old(now)
        if not self._calls:
            return None
        since = max(self._dropped, min(began for _, began in self._calls))
        return position * max(self.LEAST, now - since) / len(self._calls)

    def _drop_old(self, now: float) -> None:
        calls = self._calls
        while calls and (len(calls) > self.SAMPLES or calls[0][0] <= now - self.SPAN):
            self._dropped = calls.popleft()[0]


class CompletionRates:
    """The rate of each model of which calls have ended, of `MOST` at a time.

    Upstreams choose the names of their models, so there must be an end to what is remembered of them.
    """

    MOST = 256

    def __init__(self) -> None:
        self._rates: dict[str, CompletionRate] = {}

    def released(self, model: str, began: float, now: float) -> None:
        """Count a call for ``model``, as `CompletionRate.released`."""
        rate = self._rates.get(model)
        if rate is None:
            if len(self._rates) >= self.MOST:
                del self._rates[next(iter(self._rates))]
            rate = self._rates[model] = CompletionRate()
        rate.released(began, now)

    def wait(self, model: str, position: int, now: float) -> float | None:
        """The wait in the queue for ``model``, as `CompletionRate.wait`."""
        rate = self._rates.get(model)
        return None if rate is None else rate.wait(position, now)
