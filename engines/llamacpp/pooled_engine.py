"""The llama.cpp engine of models that pool whole texts, on the event loop's thread: embeddings, rerankers."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence

from engines.base import Pair, Scores
from engines.batching.pooling import PoolingThread
from engines.batching.pooling_engine import PoolingEngine
from engines.batching.thread import on_new_thread
from engines.errors import EngineError, UnsupportedFeature
from engines.llamacpp.model_cache import ModelCache
from engines.llamacpp.options import LlamaOptions
from engines.llamacpp.pairs import frame_of, labels_of
from engines.llamacpp.pooled_opening import OpenedContext, load_pooled, open_pooled, pooling_of
from engines.machine.dedicated_thread import in_own_thread
from engines.text.ranking.labels import scores_of
from engines.text.ranking.pair_inputs import PairInputs

logger = logging.getLogger("engines.llamacpp")


class LlamaPooledEngine(PoolingEngine):
    """One pooled context with its own thread over shared weights."""

    def __init__(self, options: LlamaOptions, models: ModelCache, opened: OpenedContext) -> None:
        """Start a thread for what was opened, whose model is held in ``models``. Made by `load`."""
        super().__init__(_start_thread(opened), opened.info, opened.model, options.stall_timeout)
        self._options = options
        self._models = models
        self._model = opened.model
        self._pairs = PairInputs(
            frame_of(opened.model), self._tokenizer, opened.info.context_length, opened.model.rerank_template
        )

    @classmethod
    async def load(
        cls, options: LlamaOptions, models: ModelCache, progress: Callable[[float], None] | None = None
    ) -> LlamaPooledEngine:
        """As `LlamaEngine.load`."""
        given_up = threading.Event()

        def report(fraction: float) -> bool:
            if progress is not None:
                progress(fraction)
            return not given_up.is_set()

        def discard(done: asyncio.Future[OpenedContext]) -> None:
            if not done.cancelled() and done.exception() is None:
                done.result().context.close()
                models.release(done.result().model)

        load = in_own_thread(lambda: load_pooled(options, models, report), "llamacpp-load")
        try:
            return cls(options, models, await asyncio.shield(load))
        except asyncio.CancelledError:
            given_up.set()
            load.add_done_callback(discard)
            raise

    async def score(self, pairs: Sequence[Pair], *, most: int | None = None, request_id: str = "") -> Scores:
        if "rerank" not in self._info.capabilities:
            raise UnsupportedFeature(f"model {self._info.model} ranks no documents", param="model")
        inputs = await self._pairs.of(pairs, most)
        rows = await self._thread.pool([each.tokens for each in inputs])
        scores = scores_of(labels_of(self._model), rows)
        return Scores(scores, tuple(len(each.tokens) for each in inputs))

    async def sleep(self) -> None:
        """Free the work space; weights and vocabulary stay."""
        if "sleep" not in self._info.capabilities:
            raise UnsupportedFeature("weights on a GPU would stay there: unload the model instead")
        self._thread.stop(EngineError("the model was put to sleep"))
        if not await self._thread_ended():
            raise EngineError(f"the engine thread of {self._info.model} hangs")

    async def wake(self) -> None:
        pooling = pooling_of(self._options)
        opened = await in_own_thread(
            lambda: open_pooled(self._options, self._models, self._model, pooling), "llamacpp-wake"
        )
        self._thread, self._info = _start_thread(opened), opened.info

    def _release_model(self) -> None:
        self._models.release(self._model)


def _start_thread(opened: OpenedContext) -> PoolingThread:
    return PoolingThread(opened.context, asyncio.get_running_loop(), on_new_thread("llamacpp-pooled"))
