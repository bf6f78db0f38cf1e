"""Threads to compute with: how many (measured once, while loading), and what OpenMP makes of them.

ggml's threads spin between operations. On few cores the event loop competes with them, and on hybrid
or hyper-threaded processors more is often slower: a measurement beats a rule.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterable
from typing import TypeVar, cast

import psutil

T = TypeVar("T")

# A count must beat a smaller one by this factor: spare cores serve clients.
WORTHWHILE = 1.05
SECONDS_PER_COUNT = 0.5
LEAST_RUNS, MOST_RUNS = 5, 24


def in_own_thread(function: Callable[[], T]) -> asyncio.Future[T]:
    """Run ``function`` in a thread that ends with it.

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
        with contextlib.suppress(RuntimeError):  # the loop may be gone by now
            loop.call_soon_threadsafe(finish, *outcome)

    threading.Thread(target=run, name="llamacpp-load", daemon=True).start()
    return future


def usable_cores() -> int:
    """Physical cores this process may run on."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))


def candidates(cores: int) -> list[int]:
    """Counts worth measuring, ascending."""
    return sorted({max(1, cores // 2), max(1, cores - 1), cores})


def fastest(
    counts: Iterable[int],
    run: Callable[[int], None],
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[int, dict[int, float]]:
    """The count for which ``run(count)`` is fastest, and the median seconds of each.

    A larger count that is slow twice in a row is not measured further: with a busy neighbour a single
    step on all cores can take seconds.
    """
    medians: dict[int, float] = {}
    best, best_seconds = 1, float("inf")
    for count in counts:
        medians[count] = _measure(count, run, clock, hopeless=2 * best_seconds)
        if medians[count] * WORTHWHILE < best_seconds:
            best, best_seconds = count, medians[count]
    return best, medians


def _measure(count: int, run: Callable[[int], None], clock: Callable[[], float], hopeless: float) -> float:
    times: list[float] = []
    while len(times) < MOST_RUNS and (len(times) < LEAST_RUNS or sum(times) < SECONDS_PER_COUNT):
        start = clock()
        run(count)
        times.append(clock() - start)
        if len(times) == 2 and min(times) > hopeless:
            break
    return statistics.median(times)
