"""So many requests a minute for each client."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.error_responses import error_response
from app.errors import ApiError
from app.middleware.origin_check import READING
from app.middleware.token_buckets import TokenBuckets
from app.paths import is_api, is_probe


class RateLimitMiddleware:
    """429 for requests under /v1 beyond ``rpm`` a minute; health and metrics are free.

    Requests that only read are counted apart: a client that watches a model load can still use it. The
    client is who `AuthMiddleware` says it is, so this stands inside of it.
    """

    def __init__(self, app: ASGIApp, rpm: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.app = app
        self._requests = TokenBuckets(rpm, clock)
        self._reads = TokenBuckets(rpm, clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_counted(scope):
            await self.app(scope, receive, send)
            return
        buckets = self._reads if scope["method"] in READING else self._requests
        allowed, tokens = buckets.take(scope.get("state", {}).get("client", "unknown"))
        headers = _headers(buckets, tokens)

        # No coroutine of its own: it runs for every piece of every stream.
        def send_with_limits(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *headers]}
            return send(message)

        app = self.app if allowed else error_response(_refusal(buckets, tokens), scope)
        await app(scope, receive, send_with_limits)


def _is_counted(scope: Scope) -> bool:
    return scope["type"] == "http" and scope["method"] != "OPTIONS" and is_api(scope) and not is_probe(scope)


def _headers(buckets: TokenBuckets, tokens: float) -> list[tuple[bytes, bytes]]:
    reset = format_duration(buckets.seconds_until(buckets.capacity, tokens))
    return [
        (b"x-ratelimit-limit-requests", str(buckets.capacity).encode()),
        (b"x-ratelimit-remaining-requests", str(math.floor(tokens)).encode()),
        (b"x-ratelimit-reset-requests", reset.encode()),
    ]


def _refusal(buckets: TokenBuckets, tokens: float) -> ApiError:
    message = f"More than {buckets.capacity} requests a minute. Try again later."
    wait = buckets.seconds_until(1, tokens)
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
