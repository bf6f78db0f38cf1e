"""The engine thread: the only one that touches the context.

Commands come in through a queue; chunks go out with one ``call_soon_threadsafe`` a step.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from engines.base import EngineStats, TokenLogprob
from engines.batching.deliveries import Deliveries
from engines.errors import EngineError
from engines.llamacpp.context import KvCacheFull, Slice
from engines.llamacpp.kv_cache import CellMemory, KvCache
from engines.llamacpp.model import LlamaModel
from engines.llamacpp.pacing import PrefillPacer
from engines.llamacpp.sampler import log_probabilities, token_logprob
from engines.llamacpp.scheduler import Scheduler, Work
from engines.llamacpp.sequence import NO_SLOT, Sequence

logger = logging.getLogger("engines.llamacpp")

Command = Callable[[], None]


class ForwardPass(CellMemory, Protocol):
    """What the worker needs of a context; `LlamaContext` is one."""

    batch_size: int
    pooled: bool

    def decode(self, slices: Seq[Slice]) -> npt.NDArray[np.float32]: ...

    def sample(self, chain: Any, row: int) -> int: ...

    def close(self) -> None: ...


class Worker:
    """Runs steps while there is work, and sleeps on its inbox while there is none."""

    def __init__(
        self,
        model: LlamaModel,
        context: ForwardPass,
        kv: KvCache,
        scheduler: Scheduler,
        pacer: PrefillPacer,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.stats = EngineStats(kv_total=kv.cells)
        self.last_progress = time.monotonic()
        self.failure: EngineError | None = None
        self._model = model
        self._context = context
        self._kv = kv
        self._scheduler = scheduler
        self._pacer = pacer
        self._inbox: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._stopping = False
        self._deliveries: Deliveries[Sequence] = Deliveries(loop)
        self._prompt_tokens = self._completion_tokens = self._cached_tokens = self._steps = 0
        self._thread = threading.Thread(target=self._run, name="llamacpp-engine", daemon=True)

    # -- called on the event loop's thread ---------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it computes; after a failure the thread is still busy with freeing for a moment."""
        return self._thread.is_alive() and self.failure is None

    @property
    def is_busy(self) -> bool:
        return self._scheduler.has_work or not self._inbox.empty()

    def submit(self, sequence: Sequence) -> None:
        if not self.is_busy:
            self.last_progress = time.monotonic()  # the clock of `health` starts with the work
        self._deliveries.expect(sequence)
        self._inbox.put(lambda: self._scheduler.submit(sequence))

    def abort(self, sequence: Sequence) -> None:
        """Free the sequence before the next step."""
        self._deliveries.forget(sequence)
        self._inbox.put(lambda: self._abort(sequence))

    def stop(self, reason: EngineError) -> None:
        """Fail what is in flight and let the thread end after its current step."""
        self._deliveries.fail_all(reason)
        self._inbox.put(self._stop)

    def join(self, timeout: float) -> bool:
        """Wait for the thread, in seconds; False if it still runs."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    # -- called on the engine thread ---------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._take_commands()
                if self._scheduler.has_work:
                    self._step()
                self._report()
        except Exception as error:
            logger.exception("the llama.cpp engine thread died")
            self._die(EngineError(f"the engine thread died: {error!r}"))
        finally:
            self._context.close()

    def _take_commands(self) -> None:
        if not self._scheduler.has_work:
            self._inbox.get()()
        while True:
            try:
                command = self._inbox.get_nowait()
            except queue.Empty:
                return
            command()

    def _step(self) -> None:
        scheduler = self._scheduler
        work = scheduler.schedule(self._pacer.budget(scheduler.decoding, scheduler.prefilling))
        if not work:
            return
        started = time.perf_counter()
        decoded = sum(not w.sequence.is_prefilling for w in work)
        prefilled = sum(w.count for w in work) - decoded
        for part in self._passes(work):
            # An earlier pass may have had to preempt what this one meant to compute.
            if still_placed := [w for w in part if w.sequence.slot != NO_SLOT]:
                self._run_pass(still_placed)
        self._pacer.observe(decoded=decoded, prefilled=prefilled, seconds=time.perf_counter() - started)

    def _passes(self, work: list[Work]) -> list[list[Work]]:
        """What to compute together. With cells of their own, sequences are padded to the longest in the
        pass: a long prompt must not make every stream's decode as long as itself."""
        if self._context.pooled:
            return [work]
        decode = [w for w in work if not w.sequence.is_prefilling]
        prefill = [w for w in work if w.sequence.is_prefilling]
        return [part for part in (decode, prefill) if part]

    def _run_pass(self, work: list[Work]) -> None:
        try:
            logits = self._context.decode([_slice(w) for w in work])
        except KvCacheFull as error:
            self._relieve(work, error)
        except Exception:
            logger.exception("a forward pass failed; its sequences are tried one by one")
            self._isolate(work)
        else:
            self._postprocess(work, logits)

    def _postprocess(self, work: list[Work], logits: npt.NDArray[np.float32]) -> None:
        """Note what was computed and draw the next token of every sequence whose prompt is complete."""
        complete = [w.sequence for w in work if w.completes]
        for item in work:
            self._scheduler.commit(item)
        self._draw(complete, logits)

    def _draw(self, sequences: list[Sequence], logits: npt.NDArray[np.float32]) -> None:
        rows: list[npt.NDArray[np.float32] | None] = []
        for row, sequence in enumerate(sequences):
            wants = sequence.request.logprobs is not None
            rows.append(log_probabilities(logits[row]) if wants else None)
            sequence.sampler.edit(logits[row])
        greedy = logits.argmax(axis=1).tolist() if any(s.sampler.is_greedy for s in sequences) else []
        for row, sequence in enumerate(sequences):
            try:
                chain = sequence.sampler.chain
                token = self._context.sample(chain, row) if chain is not None else greedy[row]
                self._extend(sequence, token, rows[row])
            except Exception as error:
                logger.exception("sampling failed for one sequence")
                self._fail(sequence, EngineError(f"sampling failed: {error!r}"))

    def _extend(self, sequence: Sequence, token: int, logprobs: npt.NDArray[np.float32] | None) -> None:
        sequence.sampler.accept(token)
        self._completion_tokens += 1
        if self._model.is_end(token):
            chunk = sequence.end()
        else:
            chunk = sequence.extend(token, self._model.piece(token), self._logprob(sequence, token, logprobs))
        if chunk.finish_reason is not None:
            self._prompt_tokens += len(sequence.request.prompt.token_ids)
            self._cached_tokens += sequence.cached or 0
            self._scheduler.finish(sequence)
            sequence.sampler.close()
        self._deliveries.add(sequence, chunk)

    def _logprob(
        self, sequence: Sequence, token: int, logprobs: npt.NDArray[np.float32] | None
    ) -> TokenLogprob | None:
        if logprobs is None:
            return None
        return token_logprob(self._model, logprobs, token, sequence.request.logprobs or 0)

    def _relieve(self, work: list[Work], error: KvCacheFull) -> None:
        """The mirror of the cells should make this impossible; if it happens, nobody pays for it."""
        logger.warning("the KV cache is fuller than accounted for: %s", error)
        if not self._scheduler.relieve():
            self._isolate(work)

    def _isolate(self, work: list[Work]) -> None:
        """Run each sequence alone, so that only those that fail by themselves fail."""
        for item in work:
            self._kv.restore(item.sequence.slot)
        for item in work:
            try:
                logits = self._context.decode([_slice(item)])
            except Exception as error:
                self._fail(item.sequence, EngineError(f"the forward pass failed: {error}"))
            else:
                self._postprocess([item], logits)

    def _fail(self, sequence: Sequence, error: EngineError) -> None:
        self._scheduler.discard(sequence)
        sequence.sampler.close()
        self._deliveries.add(sequence, error)

    def _abort(self, sequence: Sequence) -> None:
        self._scheduler.abort(sequence)
        sequence.sampler.close()

    def _stop(self) -> None:
        self._stopping = True

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
            kv_used=scheduler.cells_in_use,
            kv_total=self._kv.cells,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            cached_tokens=self._cached_tokens,
            preemptions=scheduler.preemptions,
            steps=self._steps,
        )
        self._deliveries.send()


def _slice(work: Work) -> Slice:
    sequence = work.sequence
    start = sequence.computed
    return Slice(sequence.slot, start, sequence.tokens[start : start + work.count], work.completes)
