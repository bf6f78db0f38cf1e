"""The limit of wrong keys: who guesses is soon not told any more which are wrong."""

from __future__ import annotations

import time
from collections.abc import Callable

from app.errors import ApiError
from app.middleware.token_buckets import MAX_CLIENTS, TokenBuckets
from app.telemetry.logs import get_logger

log = get_logger("auth")


class KeyGuesses:
    """So many wrong keys a minute from each network; 0: any number.

    Beyond that, no key from there is told to be right or wrong, but those that were right there before:
    clients behind one proxy or address do not lock each other out.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._left = TokenBuckets(per_minute, clock) if per_minute else None
        self._proven: dict[tuple[str, bytes], None] = {}  # the pair that was used last is last

    def is_blocked(self, network: str, digest: bytes | None) -> bool:
        """Whether ``digest``, of the key if it is one, is not to be told right from wrong."""
        if self._left is None or self._left.left(network) >= 1:
            return False
        return digest is None or (network, digest) not in self._proven

    def right(self, network: str, digest: bytes) -> None:
        if self._left is None:
            return
        self._proven.pop((network, digest), None)
        self._proven[network, digest] = None
        if len(self._proven) > MAX_CLIENTS:
            del self._proven[next(iter(self._proven))]

    def wrong(self, network: str) -> None:
        if self._left is not None and self._left.take(network)[1] < 1:
            log.warning("too_many_wrong_keys", address=network)

    def refusal(self, network: str) -> ApiError:
        """The 429 for a key that is blocked."""
        assert self._left is not None
        wait = self._left.seconds_until(1, self._left.left(network))
        message = "Too many wrong API keys came from this address. Try again later."
        return ApiError(429, "rate_limit_exceeded", message, retry_after=wait)
