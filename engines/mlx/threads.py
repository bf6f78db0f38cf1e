"""Threads that engines run on, kept for the next engine.

For every thread that computes, MLX makes a stream, which on CPUs is a thread too, and never ends it. So
loading and unloading must not use up threads: an engine's thread is parked when the engine is closed.
"""

from __future__ import annotations

import queue
import threading

from engines.batching.thread import Job


class ParkedThread:
    """A daemon thread that runs one job at a time and parks itself in between."""

    def __init__(self, parked: list[ParkedThread]) -> None:
        self._parked = parked
        self._jobs: queue.SimpleQueue[tuple[Job, threading.Event]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="mlx-engine", daemon=True).start()

    def run(self, job: Job) -> threading.Event:
        """Start ``job``; the event is set when it has ended."""
        ended = threading.Event()
        self._jobs.put((job, ended))
        return ended

    def _work(self) -> None:
        while True:
            self._run_next()  # a frame of its own, so that nothing of the job is kept while parked

    def _run_next(self) -> None:
        job, ended = self._jobs.get()
        try:
            job()
        finally:
            self._parked.append(self)
            ended.set()


_parked: list[ParkedThread] = []


def run(job: Job) -> threading.Event:
    """Run ``job``, which must not raise, on a parked thread, or a new one if all are in use."""
    try:
        thread = _parked.pop()
    except IndexError:
        thread = ParkedThread(_parked)
    return thread.run(job)
