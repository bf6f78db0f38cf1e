"""One step of MLX: preempt, admit, run the batch. Belongs to the engine thread."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from engines.base import Adapter, EngineInfo
from engines.batching.stepper import Drawn, Failed, Gauges
from engines.batching.vocabulary import ModelVocabulary
from engines.errors import EngineError
from engines.mlx.memory import KvCost
from engines.mlx.scheduler import MlxScheduler
from engines.mlx.sequence import MlxSequence

if TYPE_CHECKING:
    from engines.mlx.adapters import MlxAdapter

logger = logging.getLogger("engines.mlx")

# Failed steps in a row after which the engine counts as broken.
MOST_FAILURES = 3


class TokenGenerator(Protocol):
    """The part of a loaded model that a step needs; `engines.mlx.runtime.Runtime` is one."""

    info: EngineInfo
    cost: KvCost
    budget: int

    @property
    def vocabulary(self) -> ModelVocabulary: ...

    def insert(self, sequence: MlxSequence) -> None: ...

    def step(
        self, *, prefilling: int, decoding: int, spare_bytes: int
    ) -> list[Drawn[MlxSequence] | Failed[MlxSequence]]: ...

    def remove(self, sequence: MlxSequence, spare_bytes: int) -> None: ...

    def shrink_prefixes(self, limit: int) -> None: ...

    @property
    def held_bytes(self) -> int:
        """The bytes of weights and cached prefixes."""
        ...

    def load_adapter(self, adapter: Adapter) -> MlxAdapter: ...

    def forget_adapter(self, adapter: MlxAdapter) -> None: ...

    def reset(self) -> None: ...

    def close(self) -> None: ...


class MlxStepper:
    """Owns the batch and the scheduler; a `Stepper`."""

    def __init__(self, batch: TokenGenerator) -> None:
        self.info = batch.info
        self.vocabulary = batch.vocabulary
        self._batch = batch
        self._scheduler = MlxScheduler(batch.cost, budget=batch.budget, max_running=batch.info.max_sequences)
        self._kv_total = batch.budget // batch.cost.marginal
        self._failures = 0  # in a row

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work

    def submit(self, sequence: MlxSequence) -> None:
        self._scheduler.submit(sequence)

    def remove(self, sequence: MlxSequence) -> None:
        self._scheduler.remove(sequence)
        self._leave_batch(sequence)

    def step(self) -> list[Drawn[MlxSequence] | Failed[MlxSequence]]:
        try:
            results = self._run_batch()
        except Exception as error:
            logger.exception("a step failed")
            return [*self._fail_batch(EngineError(f"the forward pass failed: {error}"))]
        self._failures = 0
        for each in results:
            each.sequence.is_prefilling = False
            if isinstance(each, Failed):
                self.remove(each.sequence)
        return results

    def gauges(self) -> Gauges:
        scheduler = self._scheduler
        return Gauges(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            kv_used=scheduler.tokens_in_use,
            kv_total=self._kv_total,
            preemptions=scheduler.preemptions,
            memory=self._batch.held_bytes + scheduler.used_bytes,
        )

    def load_adapter(self, adapter: Adapter) -> MlxAdapter:
        """A LoRA adapter for sequences to be computed with. Raises `ModelLoadError`."""
        return self._batch.load_adapter(adapter)

    def forget_adapter(self, adapter: MlxAdapter) -> None:
        """Let go of an adapter that no sequence has any more."""
        self._batch.forget_adapter(adapter)

    def close(self) -> None:
        self._batch.close()

    def _run_batch(self) -> list[Drawn[MlxSequence] | Failed[MlxSequence]]:
        scheduler, batch = self._scheduler, self._batch
        for sequence in scheduler.preempt():
            self._leave_batch(sequence)
        for sequence in scheduler.admit():
            batch.insert(sequence)
        batch.shrink_prefixes(scheduler.spare_bytes)
        prefilling = scheduler.prefilling
        return batch.step(
            prefilling=prefilling,
            decoding=len(scheduler.running) - prefilling,
            spare_bytes=scheduler.spare_bytes,
        )

    def _leave_batch(self, sequence: MlxSequence) -> None:
        if sequence.uid is not None:
            self._batch.remove(sequence, self._scheduler.spare_bytes)

    def _fail_batch(self, error: EngineError) -> list[Failed[MlxSequence]]:
        """All in the batch share a forward pass, so all of them fail; those that wait get a new batch."""
        self._failures += 1
        if self._failures >= MOST_FAILURES:
            raise error
        failed = list(self._scheduler.running)
        for sequence in failed:
            self._scheduler.remove(sequence)
            sequence.uid = None
        self._batch.reset()
        return [Failed(sequence, error) for sequence in failed]
