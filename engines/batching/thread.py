"""The engine thread: the only one that touches an engine's batch.

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
from dataclasses import replace
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from engines.base import Chunk, EngineInfo, EngineStats, Health
from engines.batching.deliveries import Deliveries
from engines.batching.sequence import Sequence
from engines.batching.stepper import Drawn, Failed, Read, Stepper
from engines.batching.vocabulary import ModelVocabulary
from engines.errors import EngineError, ModelLoadError

logger = logging.getLogger("engines.batching")

S = TypeVar("S", bound=Sequence)
T = TypeVar("T")

Job = Callable[[], None]
# Runs a job on a thread; the event is set when the job has ended.
Runner = Callable[[Job], threading.Event]
# Called while loading; raises `LoadGivenUp` once the thread was told to stop.
CheckWanted = Callable[[], None]


class LoadGivenUp(Exception):
    """The thread was told to stop while it loaded."""


class Opened(NamedTuple):
    """The facts of a loaded model that the event loop needs."""

    info: EngineInfo
    vocabulary: ModelVocabulary


def on_new_thread(name: str) -> Runner:
    """A runner that starts a daemon thread called ``name`` for every job."""

    def run(job: Job) -> threading.Event:
        ended = threading.Event()

        def work() -> None:
            try:
                job()
            finally:
                ended.set()

        threading.Thread(target=work, name=name, daemon=True).start()
        return ended

    return run


class EngineThread(Generic[S]):
    """Opens a `Stepper`, then steps while there is work and sleeps on its inbox while there is none."""

    _stepper: Stepper[S]  # there from its opening to its closing, both on the engine thread

    def __init__(
        self,
        open_stepper: Callable[[CheckWanted], Stepper[S]],
        loop: asyncio.AbstractEventLoop,
        run: Runner,
        stats: EngineStats | None = None,
    ) -> None:
        """``open_stepper`` is called on the thread of ``run``; ``stats`` hold until the stepper is open."""
        self.opened: asyncio.Future[Opened] = loop.create_future()
        self.stats = stats or EngineStats()
        self.last_progress = time.monotonic()
        self.failure: EngineError | None = None
        self._open_stepper = open_stepper
        self._run_job = run
        self._ended: threading.Event | None = None
        self._stopping = threading.Event()
        self._inbox: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._deliveries: Deliveries[S] = Deliveries(loop)
        self._calls: set[asyncio.Future[Any]] = set()
        self._prompt_tokens = self._completion_tokens = self._cached_tokens = self._steps = 0

    # -- called on the event loop's thread ---------------------------------------------------------

    def start(self) -> None:
        self._ended = self._run_job(self._run)

    @property
    def is_alive(self) -> bool:
        """Whether it computes; after a failure the thread is still busy with freeing for a moment."""
        return self._ended is not None and not self._ended.is_set() and self.failure is None

    @property
    def is_busy(self) -> bool:
        return self._deliveries.awaited or not self._inbox.empty()

    def health(self, stall_timeout: float) -> Health:
        """Progress-based: work without a step for ``stall_timeout`` seconds is a stall."""
        if not self.is_alive:
            return Health(False, str(self.failure or "the engine thread ended"))
        stalled = time.monotonic() - self.last_progress
        if self.is_busy and stalled > stall_timeout:
            return Health(False, f"no step for {stalled:.0f} s with work waiting")
        return Health(True)

    def submit(self, sequence: S) -> None:
        if not self.is_busy:
            self.last_progress = time.monotonic()  # the clock of `health` starts with the work
        self._deliveries.expect(sequence)
        self._inbox.put(lambda: self._stepper.submit(sequence))

    def abort(self, sequence: S) -> None:
        """Free the sequence before the next step."""
        self._deliveries.forget(sequence)
        self._inbox.put(lambda: self._stepper.remove(sequence))

    async def drained(self, wanted: Callable[[S], bool]) -> None:
        """Return when all sequences that are ``wanted`` have ended."""
        await self._deliveries.drained(wanted)

    def call(self, job: Callable[[Stepper[S]], T]) -> asyncio.Future[T]:
        """Have the thread do ``job`` between two steps. Fails with what ends the thread before."""
        result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._calls.add(result)
        result.add_done_callback(self._calls.discard)
        self._inbox.put(partial(self._answer, job, result))
        return result

    def stop(self, reason: EngineError) -> None:
        """Fail what is in flight and end after the current step, or give the load up."""
        self._fail_all(reason)
        self._stopping.set()
        self._inbox.put(lambda: None)

    def join(self, timeout: float) -> bool:
        """Wait until the stepper is closed, in seconds; False if it is not yet. Blocks."""
        return self._ended is None or self._ended.wait(timeout)

    # -- called on the engine thread ---------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._stepper = self._open_stepper(self._check_wanted)
        except LoadGivenUp:
            return
        except Exception as error:
            _forget_frames(error)
            self._deliveries.call_loop(partial(self._finish_opening, error))
            return
        try:
            self._serve()
        except Exception as error:
            logger.exception("the engine thread of %s died", self._stepper.info.model)
            self._die(EngineError(f"the engine thread died: {error!r}"))
        finally:
            self._stepper.close()
            del self._stepper, self._open_stepper

    def _check_wanted(self) -> None:
        if self._stopping.is_set():
            raise LoadGivenUp

    def _serve(self) -> None:
        self._publish()
        opened = Opened(self._stepper.info, self._stepper.vocabulary)
        self._deliveries.call_loop(lambda: self._finish_opening(opened))
        while not self._stopping.is_set():
            self._take_commands()
            if self._stepper.has_work:
                for result in self._stepper.step():
                    self._deliver(result)
            self._report()

    def _take_commands(self) -> None:
        if not self._stepper.has_work:
            self._inbox.get()()
        with contextlib.suppress(queue.Empty):
            while True:
                self._inbox.get_nowait()()

    def _deliver(self, result: Drawn[S] | Read[S] | Failed[S]) -> None:
        """Turn a step's result into a chunk or an error for its stream."""
        sequence = result.sequence
        if sequence.has_ended:  # at a token before this one
            return
        if isinstance(result, Failed):
            self._deliveries.add(sequence, result.error)
            return
        try:
            chunk = self._chunk(result)
        except Exception as error:
            if not isinstance(error, EngineError):
                logger.exception("a token of one sequence could not be taken")
                error = EngineError(f"a token could not be taken: {error!r}")
            self._stepper.remove(sequence)
            self._deliveries.add(sequence, error)
            return
        if chunk.finish_reason is not None:
            self._prompt_tokens += len(sequence.request.prompt.token_ids)
            self._cached_tokens += sequence.cached or 0
            self._stepper.remove(sequence)
        self._deliveries.add(sequence, chunk)

    def _chunk(self, result: Drawn[S] | Read[S]) -> Chunk:
        sequence = result.sequence
        chunk = sequence.end_of_prompt() if isinstance(result, Read) else self._extend(result)
        if sequence.prompt_logprobs is not None:
            chunk = replace(chunk, prompt_logprobs=tuple(sequence.prompt_logprobs))
            sequence.prompt_logprobs = None
        return chunk

    def _extend(self, drawn: Drawn[S]) -> Chunk:
        self._completion_tokens += 1
        sequence, token, logprob = drawn
        if self._stepper.vocabulary.is_end(token) or token in sequence.request.stop_token_ids:
            return sequence.end(token, logprob)
        return sequence.extend(token, logprob)

    def _die(self, error: EngineError) -> None:
        self.failure = error
        self._deliveries.call_loop(lambda: self._fail_all(error))

    def _answer(self, job: Callable[[Stepper[S]], T], result: asyncio.Future[T]) -> None:
        try:
            value = job(self._stepper)
        except Exception as error:
            self._deliveries.call_loop(partial(_settle, result.set_exception, result, error))
        else:
            self._deliveries.call_loop(partial(_settle, result.set_result, result, value))

    def _report(self) -> None:
        """Publish the counters and hand the step's chunks to the loop."""
        self._steps += 1
        self.last_progress = time.monotonic()
        self._publish()
        self._deliveries.send()

    def _publish(self) -> None:
        gauges = self._stepper.gauges()
        self.stats = EngineStats(
            running=gauges.running,
            waiting=gauges.waiting,
            kv_used=gauges.kv_used,
            kv_total=gauges.kv_total,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            cached_tokens=self._cached_tokens,
            preemptions=gauges.preemptions,
            memory=gauges.memory,
            steps=self._steps,
        )

    # -- back on the event loop's thread -----------------------------------------------------------

    def _fail_all(self, reason: EngineError) -> None:
        self._deliveries.fail_all(reason)
        for call in tuple(self._calls):
            _settle(call.set_exception, call, reason)

    def _finish_opening(self, result: Opened | Exception) -> None:
        if self.opened.done():
            return
        if isinstance(result, ModelLoadError):
            self.opened.set_exception(result)
        elif isinstance(result, Exception):
            error = ModelLoadError(f"loading failed: {result!r}")
            error.__cause__ = result
            self.opened.set_exception(error)
        else:
            self.opened.set_result(result)


def _settle(settle: Callable[[Any], None], future: asyncio.Future[Any], outcome: object) -> None:
    if not future.done():
        settle(outcome)


def _forget_frames(error: BaseException | None) -> None:
    """Clear the frames of an error and its causes: whoever keeps it must not keep the half-loaded model that
    they hold."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
