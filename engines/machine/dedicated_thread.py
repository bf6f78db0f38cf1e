"""Work that takes long, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar, cast

T = TypeVar("T")

_running: set[threading.Thread] = set()


def is_busy() -> bool:
    """Whether such work is being done: nothing can end it, which may be in a library's code."""
    return bool(_running)


def in_own_thread(function: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Run ``function`` in a thread that is called ``name`` and ends with it.

    OpenMP keeps a pool of threads for every thread that ever computed, and stops spinning at barriers
    as soon as all pools together have more threads than there are cores. A pool left behind by a
    thread of an executor would halve the speed of the engine's own.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def finish(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(cast(T, result))

    def run() -> None:
        try:
            outcome: tuple[T | None, BaseException | None] = (function(), None)
        except BaseException as error:
            outcome = (None, error)
        _running.discard(threading.current_thread())
        with contextlib.suppress(RuntimeError):  # the loop may be gone by now
            loop.call_soon_threadsafe(finish, *outcome)

    thread = threading.Thread(target=run, name=name, daemon=True)
    _running.add(thread)
    thread.start()
    return future
