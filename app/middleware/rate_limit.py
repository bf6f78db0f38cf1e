"""So many requests a minute for each client."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import ApiError, error_response
from app.middleware.paths import is_api

_SWEEP_SECONDS = 60.0


@dataclass(slots=True)
class Bucket:
    """Tokens left at a moment; a request takes one."""

    tokens: float
    at: float


class TokenBuckets:
    """A bucket of ``rpm`` tokens for each client, refilled evenly over a minute. Does no I/O.

    A full bucket is as good as none, so full ones are dropped: at most those stay that were used within
    the last two minutes.
    """

    def __init__(self, rpm: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.capacity = rpm
        self.per_second = rpm / 60
        self._clock = clock
        self._buckets: dict[str, Bucket] = {}
        self._swept = clock()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, client: str) -> tuple[bool, float]:
        """Whether the client may go on, and its tokens after that."""
        now = self._clock()
        self._sweep(now)
        bucket = self._buckets.setdefault(client, Bucket(self.capacity, now))
        bucket.tokens, bucket.at = self._filled(bucket, now), now
        if bucket.tokens < 1:
            return False, bucket.tokens
        bucket.tokens -= 1
        return True, bucket.tokens

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


class RateLimitMiddleware:
    """429 for POST requests under /v1 beyond ``rpm`` a minute; others are free.

    The client is who `AuthMiddleware` says it is, so this stands inside of it.
    """

    def __init__(self, app: ASGIApp, rpm: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.app = app
        self._buckets = TokenBuckets(rpm, clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not is_api(scope):
            await self.app(scope, receive, send)
            return
        allowed, tokens = self._buckets.take(scope.get("state", {}).get("client", "unknown"))
        headers = self._headers(tokens)

        # No coroutine of its own: it runs for every piece of every stream.
        def send_with_limits(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *headers]}
            return send(message)

        app = self.app if allowed else error_response(self._refusal(tokens))
        await app(scope, receive, send_with_limits)

    def _headers(self, tokens: float) -> list[tuple[bytes, bytes]]:
        capacity = self._buckets.capacity
        reset = format_duration(self._buckets.seconds_until(capacity, tokens))
        return [
            (b"x-ratelimit-limit-requests", str(capacity).encode()),
            (b"x-ratelimit-remaining-requests", str(math.floor(tokens)).encode()),
            (b"x-ratelimit-reset-requests", reset.encode()),
        ]

    def _refusal(self, tokens: float) -> ApiError:
        message = f"More than {self._buckets.capacity} requests a minute. Try again later."
        wait = self._buckets.seconds_until(1, tokens)
        return ApiError(429, "rate_limit_exceeded", message, retry_after=wait)


def format_duration(seconds: float) -> str:
    """A duration as OpenAI's headers write it, rounded up: 120ms, 1s, 6m0s, 1h0m0s."""
    if 0 < seconds < 1:
        milliseconds = math.ceil(seconds * 1000)
        if milliseconds < 1000:
            return f"{milliseconds}ms"
    # Rounded first: floating-point dust must not add a second.
    minutes, rest = divmod(math.ceil(round(seconds, 6)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
