"""Health tracker: a verdict on a backend from the results of probes, with thresholds."""

from __future__ import annotations

# Seconds between probes while it is open whether a backend is healthy.
WATCH_INTERVAL = 1.0


class HealthTracker:
    """Unhealthy after ``failures`` in a row, healthy after ``successes`` in a row.

    The thresholds of Kubernetes' probes and HAProxy's fall and rise: one lost probe moves no traffic, and a
    backend that comes back has to prove it. While a verdict is due, probes come faster (HAProxy's fastinter).
    """

    def __init__(self, failures: int = 3, successes: int = 2) -> None:
        self._failures = failures
        self._successes = successes
        self._healthy = True
        self._against = 0  # results in a row that speak against what the backend is thought to be

    @property
    def healthy(self) -> bool:
        return self._healthy

    def observe(self, ok: bool) -> bool:
        """Take in a probe's result, and say whether the backend is healthy now."""
        if ok == self._healthy:
            self._against = 0
            return self._healthy
        self._against += 1
        if self._against >= (self._failures if self._healthy else self._successes):
            self._healthy = not self._healthy
            self._against = 0
        return self._healthy

    def suspect(self) -> bool:
        """Count a failed call as one failed probe, without waiting for one; return what `observe` does."""
        return self.observe(False)

    def next_probe(self, interval: float) -> float:
        """Seconds until the next probe; ``interval`` while there is no doubt about the backend."""
        undecided = not self._healthy or self._against > 0
        return min(interval, WATCH_INTERVAL) if undecided else interval
