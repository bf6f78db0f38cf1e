"""Claims on a model by work off the event loop: what frees the model waits for them.

All engines of the process share a few threads, so that no number of long prompts takes more.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol, TypeVar

from engines.errors import EngineError

T = TypeVar("T")

Check = Callable[[], None]
"""Called by work between its pieces: raises once nobody waits for it any more."""

THREADS = 2
_pool = ThreadPoolExecutor(THREADS, "engine-text")


class Threads(Protocol):
    """A pool of threads."""

    def submit(self, work: Callable[[Check], T], check: Check, /) -> Future[T]: ...


class CallerGone(Exception):
    """Nobody waits for the work any more; nobody sees this either."""


class Claims:
    """The claims on one model. Belongs to an event loop."""

    def __init__(self, pool: Threads = _pool) -> None:
        self._pool = pool
        self._held: dict[Future[Any], asyncio.Future[Any]] = {}
        self._closed = False

    def check(self) -> None:
        """Raise `EngineError` once the model is not to be touched any more."""
        if self._closed:
            raise EngineError("the engine is closed")

    async def run(self, work: Callable[[Check], T]) -> T:
        """What ``work`` returns, from a thread, with a claim on the model until that thread is done with it.

        Cancelling this ends the work at its next check. Raises `EngineError` if the model goes.
        """
        self.check()
        gone = threading.Event()
        job = self._pool.submit(work, lambda: self._look(gone))
        done = self._held[job] = asyncio.wrap_future(job)
        done.add_done_callback(partial(self._release, job))
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            gone.set()
            job.cancel()  # if it has not begun
            if self._closed and not _is_cancelled():
                raise EngineError("the model is being unloaded") from None
            raise

    async def close(self) -> None:
        """Let no further work begin, end what runs at its next check, and return when nothing does."""
        self._closed = True
        held = dict(self._held)
        for job in held:
            job.cancel()  # if it has not begun
        if held:
            await asyncio.wait(held.values())

    def _look(self, gone: threading.Event) -> None:
        if gone.is_set():
            raise CallerGone
        if self._closed:
            raise EngineError("the model is being unloaded")

    def _release(self, job: Future[Any], done: asyncio.Future[Any]) -> None:
        del self._held[job]
        if not done.cancelled():
            done.exception()  # looked at: asyncio need not report it when the caller has gone


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
