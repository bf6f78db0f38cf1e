"""TokenMask of one sequence: which tokens may come next."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from engines.errors import EngineError, RequestError
from engines.text.grammar.sources import reason

if TYPE_CHECKING:
    from llguidance import LLMatcher

logger = logging.getLogger("engines")

# What a mask may take on average, and how far an answer may be behind that before it is ended (CPU seconds).
ALLOWANCE = 0.002
DEBT = 0.5

THREADS = max(1, min(8, (os.cpu_count() or 1) // 2))
# All engines of the process share them.
_pool = ThreadPoolExecutor(THREADS, "grammar-mask")


class TokenMask:
    """The tokens that a grammar allows next, step by step: `start`, `apply`, draw, `consume`.

    Used by one thread at a time, which fills by `start` in another one meanwhile. ``matcher`` makes the
    sequence's own matcher; ``generated`` are the tokens that the sequence has already.
    """

    def __init__(self, matcher: Callable[[], LLMatcher], generated: Sequence[int] = ()) -> None:
        self._make = matcher
        self._generated = list(generated)
        self._matcher: LLMatcher | None = None
        self._bits = b""
        self._filling: Future[None] | None = None
        self._error: EngineError | None = None
        self._debt = 0.0

    def start(self) -> None:
        """Begin to find out what may come next, in another thread. Nothing happens if that has begun."""
        start([self])

    def allowed(self, n_vocab: int) -> npt.NDArray[np.bool_]:
        """For each of ``n_vocab`` tokens whether it may come next, as one at least may. Blocks until that is
        known.

        Raises `EngineError` where the answer cannot go on, then and ever after: it must not seem to have
        ended.
        """
        self.start()
        assert self._filling is not None
        self._filling.result()
        if self._error is not None:
            raise self._error
        bits = np.frombuffer(self._bits, dtype=np.uint8)
        return np.unpackbits(bits, count=n_vocab, bitorder="little").view(np.bool_)

    def apply(self, row: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        """Take from ``row``, a logit for each token, all that may not come next. Returns, and raises, what
        `allowed` does."""
        allowed = self.allowed(row.size)
        np.copyto(row, -np.inf, where=~allowed)
        return allowed

    def consume(self, token: int) -> None:
        """Go on behind ``token``. Raises `EngineError` if it may not come next."""
        self.start()
        assert self._filling is not None
        self._filling.result()  # a matcher has one user at a time
        self._filling = None
        if self._error is None:
            assert self._matcher is not None
            if not self._bits[token // 8] >> token % 8 & 1:
                self._error = EngineError(f"token {token} was drawn, which the structure forbids")
            elif not self._matcher.consume_token(token) or self._matcher.is_error():
                self._error = broken(self._matcher, "the answer cannot go on in the form that was asked for")
        if self._error is not None:
            raise self._error

    @property
    def is_stopped(self) -> bool:
        """Whether the answer is complete: only its end may come next. Known once it was asked for."""
        return self._matcher is not None and self._error is None and self._matcher.is_stopped()

    def wait(self) -> None:
        """Return when no other thread uses this any more."""
        if self._filling is not None:
            self._filling.result()

    # -- in a thread of the pool -------------------------------------------------------------------

    def _fill(self) -> None:
        if self._error is not None:
            return
        began = time.thread_time()
        try:
            self._find()
        except EngineError as error:
            self._error = error
        except Exception as error:
            logger.exception("a mask could not be filled")
            self._error = EngineError(f"the grammar failed: {error!r}")
        self._debt = max(0.0, self._debt + time.thread_time() - began - ALLOWANCE)
        if self._debt > DEBT and self._error is None:
            self._error = RequestError(
                "the structure of the answer is too costly to follow: make it simpler or less ambiguous",
                param="response_format",
            )

    def _find(self) -> None:
        matcher = self._matcher
        if matcher is None:
            matcher = self._matcher = self._make()
            if self._generated and not matcher.consume_tokens(self._generated):
                raise broken(matcher, "what was generated before has another form than was asked for")
        self._bits = matcher.compute_bitmask()
        if matcher.is_error() or not any(self._bits):
            raise broken(matcher, "the answer cannot go on in the form that was asked for")


def broken(matcher: LLMatcher, what: str) -> RequestError:
    """The error of an answer that ``matcher`` cannot follow: the grammar is at fault, not the engine."""
    return RequestError(f"{what}: {reason(matcher.get_error())}", param="response_format")


def start(masks: Sequence[TokenMask]) -> None:
    """Begin to fill ``masks`` in other threads, as few as do it at once; see `TokenMask.start`."""
    waiting = [mask for mask in masks if mask._filling is None]
    parts = min(THREADS, len(waiting))
    for i in range(parts):
        part = waiting[i::parts]
        job = _pool.submit(_fill_all, part)
        for mask in part:
            mask._filling = job


def _fill_all(masks: Sequence[TokenMask]) -> None:
    for mask in masks:
        mask._fill()
