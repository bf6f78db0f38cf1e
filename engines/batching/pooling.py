"""The thread of an engine that pools whole texts: those of all requests wait in one queue, and go in batches.

Requests take turns text by text, so that a single text does not wait for two thousand of another request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from engines.base import EngineStats, Health, Vectors
from engines.batching.thread import Runner
from engines.errors import EngineError

logger = logging.getLogger("engines.batching")

Text = Sequence[int]


class Pooler(Protocol):
    """A loaded model that pools texts, used on one thread. ``width`` is how many numbers a text becomes.

    A pass has at most ``most_texts`` texts and, unless it is of one, ``most_tokens`` tokens.
    """

    width: int
    most_texts: int
    most_tokens: int

    def compute(self, texts: Sequence[Text]) -> Vectors:
        """One row for each text. An `EngineError` is of these texts, anything else ends the engine."""
        ...

    def close(self) -> None: ...


class _Job:
    """The texts of one call; ``rows`` fill up in whatever order. The thread's lock guards ``waiting``."""

    def __init__(self, texts: Sequence[Text], width: int, future: asyncio.Future[Vectors]) -> None:
        self.texts = texts
        self.rows = np.empty((len(texts), width), dtype=np.float32)
        self.waiting = deque(range(len(texts)))
        self.left = len(texts)
        self.future = future


class _Place(NamedTuple):
    """A text of a job."""

    job: _Job
    number: int

    @property
    def text(self) -> Text:
        return self.job.texts[self.number]


class PoolingThread:
    """Computes while texts wait, and sleeps while none does. `pool` and `stop` belong to the event loop."""

    def __init__(self, pooler: Pooler, loop: asyncio.AbstractEventLoop, run: Runner) -> None:
        """``pooler`` is closed when the thread ends, which ``run`` starts."""
        self.failure: EngineError | None = None
        self._pooler = pooler
        self._width = pooler.width
        self._loop = loop
        self._changed = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._live: set[_Job] = set()
        self._stopping = False
        self._running = self._waiting = self._tokens = self._steps = 0
        self._last_progress = time.monotonic()
        self._ended = run(self._run)

    async def pool(self, texts: Sequence[Text]) -> Vectors:
        """One row for each text. Cancelling it drops those that wait. Raises `EngineError`."""
        if self.failure is not None or self._stopping:
            raise self.failure or EngineError("the engine is closed")
        job = _Job(texts, self._width, self._loop.create_future())
        if not self._live:
            self._last_progress = time.monotonic()  # the clock of `health` starts with the work
        self._live.add(job)
        with self._changed:
            self._jobs.append(job)
            self._waiting += len(texts)
            self._changed.notify()
        try:
            return await job.future
        finally:
            self._live.discard(job)
            self._drop(job)

    def health(self, stall_timeout: float) -> Health:
        """Progress-based: work without a pass for ``stall_timeout`` seconds is a stall."""
        if self.failure is not None or self._ended.is_set():
            return Health(False, str(self.failure or "the engine thread ended"))
        stalled = time.monotonic() - self._last_progress
        if self._live and stalled > stall_timeout:
            return Health(False, f"no step for {stalled:.0f} s with work waiting")
        return Health(True)

    def stats(self) -> EngineStats:
        return EngineStats(
            running=self._running, waiting=self._waiting, prompt_tokens=self._tokens, steps=self._steps
        )

    def stop(self, reason: EngineError) -> None:
        """Fail what is in flight and end after the pass that runs."""
        self._fail_all(reason)
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def join(self, timeout: float) -> bool:
        """Wait until the pooler is closed, in seconds; False if it is not yet. Blocks."""
        return self._ended.wait(timeout)

    def _fail_all(self, reason: EngineError) -> None:
        for job in self._live:
            if not job.future.done():
                job.future.set_exception(reason)

    def _drop(self, job: _Job) -> None:
        with self._changed:
            self._waiting -= len(job.waiting)
            job.waiting.clear()
            with contextlib.suppress(ValueError):
                self._jobs.remove(job)

    # -- on the engine thread ----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while batch := self._next_batch():
                self._compute(batch)
                self._running = 0
                self._steps += 1
                self._last_progress = time.monotonic()
        except Exception as error:
            logger.exception("the engine thread died")
            failure = self.failure = EngineError(f"the engine thread died: {error!r}")
            self._call_loop(lambda: self._fail_all(failure))
        finally:
            self._pooler.close()

    def _next_batch(self) -> list[_Place]:
        """The texts of the next pass, of the waiting jobs in turn; none once this is stopping."""
        with self._changed:
            while not self._jobs and not self._stopping:
                self._changed.wait()
            batch: list[_Place] = []
            tokens = 0
            while self._jobs and not self._stopping and len(batch) < self._pooler.most_texts:
                place = _Place(self._jobs[0], self._jobs[0].waiting[0])
                tokens += len(place.text)
                if batch and tokens > self._pooler.most_tokens:
                    break
                batch.append(place)
                place.job.waiting.popleft()
                self._jobs.rotate(-1)
                if not place.job.waiting:
                    self._jobs.remove(place.job)
            self._running = len(batch)
            self._waiting -= len(batch)
            return batch

    def _compute(self, batch: list[_Place]) -> None:
        try:
            rows = self._pooler.compute([place.text for place in batch])
        except EngineError as error:
            if len(batch) == 1:
                self._give_up(batch[0], error)
                return
            logger.warning("a pass failed (%s); its texts are tried one by one", error)
            for place in batch:
                self._compute([place])
            return
        for place, row in zip(batch, rows, strict=True):
            if np.isfinite(row).all():
                self._keep(place, row)
            else:
                self._give_up(place, EngineError("the model's numbers are none (NaN or infinite)"))

    def _keep(self, place: _Place, row: Vectors) -> None:
        job = place.job
        job.rows[place.number] = row
        self._tokens += len(place.text)
        job.left -= 1
        if not job.left:
            self._call_loop(lambda: None if job.future.done() else job.future.set_result(job.rows))

    def _give_up(self, place: _Place, error: EngineError) -> None:
        job = place.job
        told = EngineError(f"text {place.number} cannot be computed: {error.message}")
        self._drop(job)
        self._call_loop(lambda: None if job.future.done() else job.future.set_exception(told))

    def _call_loop(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone, and nobody is left to tell
            self._loop.call_soon_threadsafe(callback)
