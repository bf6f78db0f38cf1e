"""The llama.cpp engine of models that pool whole texts, on the event loop's thread: embeddings, rerankers."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence

from engines.base import Embeddings, EngineInfo, EngineStats, Health, Pair, Scores
from engines.batching.pooling import PoolingThread
from engines.batching.thread import on_new_thread
from engines.errors import EngineError, UnsupportedFeature
from engines.limits import check_inputs
from engines.llamacpp.model import ModelCache
from engines.llamacpp.options import LlamaOptions
from engines.llamacpp.pairs import PairInputs, scores_of
from engines.llamacpp.pooled_opening import OpenedContext, load_pooled, open_pooled, pooling_of
from engines.machine.dedicated_thread import in_own_thread
from engines.text.tokenizer import Tokenizer
from engines.vectors import normalise

logger = logging.getLogger("engines.llamacpp")


class LlamaPooledEngine:
    """One pooled context with its own thread over shared weights (`Resident`, `Embeds`)."""

    def __init__(self, options: LlamaOptions, models: ModelCache, opened: OpenedContext) -> None:
        """Start a thread for what was opened, whose model is held in ``models``. Made by `load`."""
        self._options = options
        self._models = models
        self._model = opened.model
        self._tokenizer = Tokenizer(opened.model, opened.info.context_length, ends_texts=True)
        self._pairs = PairInputs(opened.model, self._tokenizer, opened.info.context_length)
        self._closed = False
        self._start(opened)

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

    @property
    def info(self) -> EngineInfo:
        return self._info

    async def tokenize(
        self, text: str, *, add_special: bool = True, most: int | None = None
    ) -> tuple[int, ...]:
        return await self._tokenizer.tokenize(text, add_special=add_special, most=most)

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        return await self._tokenizer.detokenize(token_ids)

    def labels(self, token_ids: Sequence[int]) -> list[bytes]:
        return [*map(self._model.label, token_ids)]

    async def embed(self, inputs: Sequence[Sequence[int]], *, request_id: str = "") -> Embeddings:
        if "embeddings" not in self._info.capabilities:
            raise UnsupportedFeature(f"model {self._info.model} makes no embeddings", param="model")
        check_inputs(inputs, context_length=self._info.context_length, n_vocab=self._model.n_vocab)
        rows = await self._thread.pool(inputs)
        return Embeddings(normalise(rows), tuple(map(len, inputs)))

    async def score(self, pairs: Sequence[Pair], *, most: int | None = None, request_id: str = "") -> Scores:
        if "rerank" not in self._info.capabilities:
            raise UnsupportedFeature(f"model {self._info.model} ranks no documents", param="model")
        inputs = await self._pairs.of(pairs, most)
        rows = await self._thread.pool(inputs)
        return Scores(scores_of(self._model, rows), tuple(map(len, inputs)))

    async def health(self) -> Health:
        return Health(False, "closed") if self._closed else self._thread.health(self._options.stall_timeout)

    def stats(self) -> EngineStats:
        return self._thread.stats()

    async def sleep(self) -> None:
        """Free the work space; weights and vocabulary stay."""
        if "sleep" not in self._info.capabilities:
            raise UnsupportedFeature("weights on a GPU would stay there: unload the model instead")
        self._thread.stop(EngineError("the model was put to sleep"))
        if not await self._thread_ended():
            raise EngineError(f"the engine thread of {self._info.model} hangs")

    async def wake(self) -> None:
        pooling = pooling_of(self._options)
        self._start(
            await in_own_thread(
                lambda: open_pooled(self._options, self._models, self._model, pooling), "llamacpp-wake"
            )
        )

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._thread.stop(EngineError("the model is being unloaded"))
        await self._tokenizer.close()
        if await self._thread_ended():
            self._models.release(self._model)
        else:
            # Freeing weights under a thread that still computes would crash the process.
            logger.error("the engine thread of %s hangs; its memory is not freed", self._info.model)

    def _start(self, opened: OpenedContext) -> None:
        self._info = opened.info
        loop, run = asyncio.get_running_loop(), on_new_thread("llamacpp-pooled")
        self._thread = PoolingThread(opened.context, loop, run)

    async def _thread_ended(self) -> bool:
        """Wait until the engine thread, which was told to stop, is done; False if it hangs."""
        return await asyncio.to_thread(self._thread.join, self._options.stall_timeout)
