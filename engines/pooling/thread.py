"""The thread that pools: the only one that touches its model."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from engines.base import EngineStats, Health, Vectors
from engines.batching.thread import CheckWanted, LoadGivenUp, Runner
from engines.errors import EngineError, ModelLoadError
from engines.pooling.pooler import OpenedPooler, Pooler

logger = logging.getLogger("engines.pooling")


class _Call:
    """The texts of one call, and the rows that they have become so far."""

    def __init__(self, texts: Sequence[Sequence[int]], done: asyncio.Future[Vectors]) -> None:
        self.texts = texts
        self.done = done
        self.is_dropped = False
        self._rows: dict[int, Vectors] = {}

    def put(self, place: int, row: Vectors) -> bool:
        """Keep a row; whether that was the last one."""
        self._rows[place] = row
        return len(self._rows) == len(self.texts)

    def rows(self) -> Vectors:
        return np.stack([self._rows[i] for i in range(len(self.texts))])


class _Text(NamedTuple):
    call: _Call
    place: int

    @property
    def tokens(self) -> Sequence[int]:
        return self.call.texts[self.place]


class PoolingThread:
    """Opens a `Pooler`, then computes what waits, as many texts in a pass as fit."""

    def __init__(
        self, open_pooler: Callable[[CheckWanted], Pooler], loop: asyncio.AbstractEventLoop, run: Runner
    ) -> None:
        """``open_pooler`` is called on the thread of ``run``."""
        self.opened: asyncio.Future[OpenedPooler] = loop.create_future()
        self.last_progress = time.monotonic()
        self.stats = EngineStats()
        self._loop = loop
        self._open_pooler = open_pooler
        self._run_job = run
        self._ended: threading.Event | None = None
        self._stopping = threading.Event()
        self._inbox: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._waiting: deque[_Text] = deque()
        self._live: set[_Call] = set()

    # -- called on the event loop's thread ---------------------------------------------------------

    def start(self) -> None:
        self._ended = self._run_job(self._run)

    async def compute(self, texts: Sequence[Sequence[int]]) -> Vectors:
        """A row for each of ``texts``. Cancelling this drops those that no pass has begun with. Raises
        `EngineError`."""
        if not self._live:
            self.last_progress = time.monotonic()  # the clock of `health` starts with the work
        call = _Call(texts, self._loop.create_future())
        self._live.add(call)
        self._inbox.put(call)
        try:
            return await call.done
        finally:
            call.is_dropped = True
            self._live.discard(call)

    def stop(self, reason: EngineError) -> None:
        """Fail what is in flight and end after the current pass, or give the load up."""
        for call in self._live:
            if not call.done.done():
                call.done.set_exception(reason)
        self._stopping.set()
        self._inbox.put(None)

    def join(self, timeout: float) -> bool:
        """Wait until the pooler is closed, in seconds; False if it is not yet. Blocks."""
        return self._ended is None or self._ended.wait(timeout)

    def health(self, stall_timeout: float) -> Health:
        """Progress-based: work without a pass for ``stall_timeout`` seconds is a stall."""
        if self._ended is None or self._ended.is_set():
            return Health(False, "the thread ended")
        stalled = time.monotonic() - self.last_progress
        if self._live and stalled > stall_timeout:
            return Health(False, f"no pass for {stalled:.0f} s with texts waiting")
        return Health(True)

    # -- called on the thread ----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            pooler = self._open_pooler(self._check_wanted)
        except LoadGivenUp:
            return
        except Exception as error:
            self._call_loop(self._finish_opening, error)
            return
        try:
            self._call_loop(self._finish_opening, OpenedPooler(pooler.info, pooler.vocabulary))
            while self._take():
                self._pass(pooler)
        finally:
            pooler.close()
            del pooler, self._open_pooler

    def _check_wanted(self) -> None:
        if self._stopping.is_set():
            raise LoadGivenUp

    def _take(self) -> bool:
        """Take what has arrived, and wait for it if there is nothing to do; False at the end."""
        while not self._stopping.is_set():
            try:
                call = self._inbox.get(block=not self._waiting)
            except queue.Empty:
                return True
            if call is not None:
                self._waiting.extend(_Text(call, place) for place in range(len(call.texts)))
        return False

    def _pass(self, pooler: Pooler) -> None:
        wanted = deque(text for text in self._waiting if not text.call.is_dropped)
        count = pooler.count([len(text.tokens) for text in wanted]) if wanted else 0
        part = [wanted.popleft() for _ in range(count)]
        self._waiting = wanted
        if part:
            self._publish(running=len(part), tokens=sum(len(text.tokens) for text in part))
            self._compute(pooler, part)
        self.last_progress = time.monotonic()
        self._publish()

    def _compute(self, pooler: Pooler, part: Sequence[_Text]) -> None:
        try:
            rows = pooler.compute([text.tokens for text in part])
        except Exception as error:
            logger.exception("a pass failed")
            failure = error if isinstance(error, EngineError) else EngineError(f"a pass failed: {error}")
            for call in {text.call for text in part}:
                self._fail(call, failure)
            return
        for text, row in zip(part, rows, strict=True):
            if not np.isfinite(row).all():
                self._fail(text.call, EngineError("the model made a vector with numbers that are none"))
            elif text.call.put(text.place, row):
                self._call_loop(_finish, text.call, text.call.rows())

    def _fail(self, call: _Call, error: EngineError) -> None:
        call.is_dropped = True
        self._call_loop(_finish, call, error)

    def _publish(self, *, running: int = 0, tokens: int = 0) -> None:
        old = self.stats
        self.stats = EngineStats(
            running=running,
            waiting=len(self._waiting),
            prompt_tokens=old.prompt_tokens + tokens,
            steps=old.steps + bool(running),
        )

    def _call_loop(self, callback: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            logger.debug("the event loop is closed; nobody is left to tell")

    # -- back on the event loop's thread -----------------------------------------------------------

    def _finish_opening(self, result: OpenedPooler | Exception) -> None:
        if self.opened.done():
            return
        if isinstance(result, OpenedPooler):
            self.opened.set_result(result)
            return
        error = (
            result if isinstance(result, ModelLoadError) else ModelLoadError(f"loading failed: {result!r}")
        )
        self.opened.set_exception(error)


def _finish(call: _Call, result: Vectors | EngineError) -> None:
    if call.done.done():
        return
    if isinstance(result, EngineError):
        call.done.set_exception(result)
    else:
        call.done.set_result(result)
