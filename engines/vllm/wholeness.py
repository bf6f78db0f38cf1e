"""Wholeness of structured answers: where vLLM's grammar fails, or exceeds its limits, it allows nothing but
the end, and the answer seems to be complete."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

Check = Callable[[Sequence[int]], Awaitable[None]]


class Wholeness:
    """The tokens of one answer, to be looked at when it ends."""

    __slots__ = ("_check", "_is_end", "_tokens")

    def __init__(self, check: Check, is_end: Callable[[int], bool]) -> None:
        """``check`` raises `RequestError` for tokens that are no whole answer."""
        self._check = check
        self._is_end = is_end
        self._tokens: list[int] = []

    def take(self, tokens: Sequence[int]) -> None:
        self._tokens += tokens

    async def check_end(self) -> None:
        """Raise `RequestError` if the answer ended where it must not. One that a token of the request's own
        ended, `stop_token_ids`, may end anywhere."""
        if self._tokens and self._is_end(self._tokens[-1]):
            await self._check(self._tokens[:-1])
