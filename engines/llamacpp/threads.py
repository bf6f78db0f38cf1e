"""The number of threads to compute with, measured once, while loading.

ggml's threads spin between operations. On few cores the event loop competes with them, and on hybrid
or hyper-threaded processors more is often slower: a measurement beats a rule.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterable

import psutil

# A count must beat a smaller one by this factor: spare cores serve clients.
WORTHWHILE = 1.05
SECONDS_PER_COUNT = 0.5
LEAST_RUNS, MOST_RUNS = 5, 24


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
