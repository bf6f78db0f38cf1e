"""Threads that compile grammars. A compilation cannot be ended: one that takes too long is left to itself."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class CompileThreads:
    """A pool of ``count`` threads, and others in their place once one is lost. All engines share it.

    ``has_lost`` one: from then on grammars are to be tried first where that can be ended (`trial`).
    """

    def __init__(self, count: int) -> None:
        self.has_lost = False
        self._count = count
        self._pool = self._new_pool()

    def submit(self, work: Callable[..., T], *args: object) -> Future[T]:
        return self._pool.submit(work, *args)

    def replace(self) -> None:
        """One of them will not come back in time; what waits for it still gets its turn then."""
        self.has_lost = True
        self._pool.shutdown(wait=False)
        self._pool = self._new_pool()

    def _new_pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._count, "grammar-compile")
