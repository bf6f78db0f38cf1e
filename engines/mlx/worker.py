"""The engine thread: the only one that touches a model, from loading to freeing it.

Commands come in through a queue; chunks go out with one ``call_soon_threadsafe`` a step.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import Protocol

from engines.base import EngineInfo, EngineStats
from engines.batching.deliveries import Deliveries
from engines.errors import EngineError, ModelLoadError
from engines.mlx import threads
from engines.mlx.memory import KvCost
from engines.mlx.scheduler import Scheduler
from engines.mlx.sequence import Drawn, Sequence
from engines.mlx.vocabulary import Vocabulary

logger = logging.getLogger("engines.mlx")

Command = Callable[[], None]
Report = Callable[[float], None]

# Failed steps in a row after which the engine counts as broken.
MOST_FAILURES = 3


class Batch(Protocol):
    """What the worker needs of a loaded model; `engines.mlx.runtime.Runtime` is one."""

    info: EngineInfo
    vocabulary: Vocabulary
    cost: KvCost
    budget: int

    def insert(self, sequence: Sequence) -> None: ...

    def step(self, *, prefilling: int, decoding: int, spare_bytes: int) -> list[Drawn]: ...

    def remove(self, sequence: Sequence, spare_bytes: int) -> None: ...

    def shrink_prefixes(self, limit: int) -> None: ...

    def reset(self) -> None: ...

    def close(self) -> None: ...


class LoadGivenUp(Exception):
    """Nobody waits for the model any more."""


class Worker:
    """Loads a model, then runs steps while there is work and sleeps on its inbox while there is none."""

    # Made on the engine thread once the model is loaded.
    _batch: Batch
    _scheduler: Scheduler
    _kv_total: int

    def __init__(self, open_batch: Callable[[Report], Batch], loop: asyncio.AbstractEventLoop) -> None:
        """``open_batch`` runs on the engine thread, and all that it makes stays there."""
        self.stats = EngineStats()
        self.last_progress = time.monotonic()
        self.failure: EngineError | None = None
        self.loaded: asyncio.Future[tuple[EngineInfo, Vocabulary]] = loop.create_future()
        self._open_batch = open_batch
        self._inbox: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._deliveries: Deliveries[Sequence] = Deliveries(loop)
        self._by_uid: dict[int, Sequence] = {}
        self._failures = 0  # in a row
        self._prompt_tokens = self._completion_tokens = self._cached_tokens = self._steps = 0
        self._ended: threading.Event | None = None

    # -- called on the event loop's thread ---------------------------------------------------------

    def start(self) -> None:
        self._ended = threads.run(self._run)

    @property
    def is_alive(self) -> bool:
        """Whether it computes; after a failure the thread is still busy with freeing for a moment."""
        return self._ended is not None and not self._ended.is_set() and self.failure is None

    @property
    def is_busy(self) -> bool:
        return self._deliveries.awaited or not self._inbox.empty()

    def submit(self, sequence: Sequence) -> None:
        if not self._deliveries.awaited:
            self.last_progress = time.monotonic()  # the clock of `health` starts with the work
        self._deliveries.expect(sequence)
        self._inbox.put(lambda: self._scheduler.submit(sequence))

    def abort(self, sequence: Sequence) -> None:
        """Free the sequence before the next step."""
        self._deliveries.forget(sequence)
        self._inbox.put(lambda: self._remove(sequence))

    def stop(self, reason: EngineError) -> None:
        """Fail what is in flight and end after the current step, or give the load up."""
        self._deliveries.fail_all(reason)
        self._stopping.set()
        self._inbox.put(lambda: None)

    def join(self, timeout: float) -> bool:
        """Wait until the thread is done with this engine, in seconds; False if it is not yet."""
        return self._ended is None or self._ended.wait(timeout)

    # -- called on the engine thread ---------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._batch = self._open()
        except LoadGivenUp:
            return
        except Exception as error:
            _forget_frames(error)
            self._deliveries.call_loop(partial(self._finish_load, error))
            return
        try:
            self._serve()
        except Exception as error:
            logger.exception("the MLX engine thread died")
            self._die(EngineError(f"the engine thread died: {error!r}"))
        finally:
            self._batch.close()
            del self._batch, self._open_batch

    def _open(self) -> Batch:
        batch = self._open_batch(self._check_wanted)
        self._scheduler = Scheduler(batch.cost, budget=batch.budget, max_running=batch.info.max_sequences)
        self._kv_total = batch.budget // batch.cost.marginal
        self.stats = EngineStats(kv_total=self._kv_total)
        result = batch.info, batch.vocabulary
        self._deliveries.call_loop(lambda: self._finish_load(result))
        return batch

    def _check_wanted(self, fraction: float) -> None:
        if self._stopping.is_set():
            raise LoadGivenUp

    def _serve(self) -> None:
        while not self._stopping.is_set():
            self._take_commands()
            if self._scheduler.has_work:
                self._step()
            self._report()

    def _take_commands(self) -> None:
        if not self._scheduler.has_work:
            self._inbox.get()()
        with contextlib.suppress(queue.Empty):
            while True:
                self._inbox.get_nowait()()

    def _step(self) -> None:
        scheduler = self._scheduler
        try:
            for sequence in scheduler.preempt():
                self._leave_batch(sequence)
            for sequence in scheduler.admit():
                self._join_batch(sequence)
            self._batch.shrink_prefixes(scheduler.spare_bytes)
            prefilling = scheduler.prefilling
            drawn = self._batch.step(
                prefilling=prefilling,
                decoding=len(scheduler.running) - prefilling,
                spare_bytes=scheduler.spare_bytes,
            )
        except Exception as error:
            logger.exception("a step failed")
            self._fail_batch(EngineError(f"the forward pass failed: {error}"))
            return
        self._failures = 0
        for token in drawn:
            self._extend(self._by_uid[token.uid], token)

    def _join_batch(self, sequence: Sequence) -> None:
        self._batch.insert(sequence)
        assert sequence.uid is not None
        self._by_uid[sequence.uid] = sequence

    def _leave_batch(self, sequence: Sequence) -> None:
        if sequence.uid is not None:
            del self._by_uid[sequence.uid]
            self._batch.remove(sequence, self._scheduler.spare_bytes)

    def _extend(self, sequence: Sequence, drawn: Drawn) -> None:
        self._completion_tokens += 1
        if drawn.ended:
            chunk = sequence.end()
        else:
            piece = self._batch.vocabulary.piece(drawn.token)
            chunk = sequence.extend(drawn.token, piece, drawn.logprob)
        if chunk.finish_reason is not None:
            self._prompt_tokens += len(sequence.request.prompt.token_ids)
            self._cached_tokens += sequence.cached or 0
            self._remove(sequence)
        self._deliveries.add(sequence, chunk)

    def _remove(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it is; what it computed stays as a cached prefix."""
        self._scheduler.remove(sequence)
        self._leave_batch(sequence)

    def _fail_batch(self, error: EngineError) -> None:
        """All in the batch share a forward pass, so all of them fail; those that wait get a new batch."""
        self._failures += 1
        for sequence in list(self._scheduler.running):
            self._scheduler.remove(sequence)
            sequence.uid = None
            self._deliveries.add(sequence, error)
        self._by_uid.clear()
        if self._failures >= MOST_FAILURES:
            raise error
        self._batch.reset()

    def _die(self, error: EngineError) -> None:
        self.failure = error
        self._deliveries.call_loop(lambda: self._deliveries.fail_all(error))

    def _report(self) -> None:
        """Publish the counters and hand the step's chunks to the loop."""
        scheduler = self._scheduler
        self._steps += 1
        self.last_progress = time.monotonic()
        self.stats = EngineStats(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            kv_used=scheduler.tokens_in_use,
            kv_total=self._kv_total,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            cached_tokens=self._cached_tokens,
            preemptions=scheduler.preemptions,
            steps=self._steps,
        )
        self._deliveries.send()

    # -- back on the event loop's thread -----------------------------------------------------------

    def _finish_load(self, result: tuple[EngineInfo, Vocabulary] | Exception) -> None:
        if self.loaded.done():
            return
        if isinstance(result, ModelLoadError):
            self.loaded.set_exception(result)
        elif isinstance(result, Exception):
            error = ModelLoadError(f"loading failed: {result!r}")
            error.__cause__ = result
            self.loaded.set_exception(error)
        else:
            self.loaded.set_result(result)


def _forget_frames(error: BaseException | None) -> None:
    """Whoever keeps the error must not keep the half-loaded model that its frames hold."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
