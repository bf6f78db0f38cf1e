"""Token buckets: so many requests a minute for each of many clients."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

_SWEEP_SECONDS = 60.0
# Clients that are remembered: of more, the one that was seen longest ago is forgotten.
MAX_CLIENTS = 20_000


@dataclass(slots=True)
class Bucket:
    """Tokens left at a moment; a request takes one."""

    tokens: float
    at: float


class TokenBuckets:
    """A bucket of ``rpm`` tokens for each client, refilled evenly over a minute. Does no I/O.

    A full bucket is as good as none, so full ones are dropped: those stay that were used within the last
    two minutes, and `MAX_CLIENTS` at most.
    """

    def __init__(self, rpm: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.capacity = rpm
        self.per_second = rpm / 60
        self._clock = clock
        self._buckets: dict[str, Bucket] = {}  # the one that was used last is last
        self._swept = clock()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, client: str) -> tuple[bool, float]:
        """Whether the client may go on, and its tokens after that."""
        now = self._clock()
        self._sweep(now)
        bucket = self._buckets.pop(client, None) or Bucket(self.capacity, now)
        self._buckets[client] = bucket
        if len(self._buckets) > MAX_CLIENTS:
            del self._buckets[next(iter(self._buckets))]
        bucket.tokens, bucket.at = self._filled(bucket, now), now
        if bucket.tokens < 1:
            return False, bucket.tokens
        bucket.tokens -= 1
        return True, bucket.tokens

    def left(self, client: str) -> float:
        """The client's tokens; none is taken."""
        bucket = self._buckets.get(client)
        return self.capacity if bucket is None else self._filled(bucket, self._clock())

    def seconds_until(self, wanted: float, tokens: float) -> float:
        """How long a bucket with ``tokens`` takes to hold ``wanted``."""
        return max(0.0, wanted - tokens) / self.per_second

    def _filled(self, bucket: Bucket, now: float) -> float:
        return min(self.capacity, bucket.tokens + (now - bucket.at) * self.per_second)

    def _sweep(self, now: float) -> None:
        if now - self._swept < _SWEEP_SECONDS:
            return
        self._swept = now
        used = {name: each for name, each in self._buckets.items() if self._filled(each, now) < self.capacity}
        self._buckets = used
