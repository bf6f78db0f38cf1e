"""The event loop's side of an engine that pools on a `PoolingThread`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from engines.base import Embeddings, EngineInfo, EngineStats, Health, Pair, Scores
from engines.batching.thread import CheckWanted, Runner
from engines.errors import EngineError, UnsupportedFeature
from engines.limits import check_inputs
from engines.pooling.pooler import OpenedPooler, Pooler
from engines.pooling.thread import PoolingThread
from engines.text.tokenizer import Tokenizer
from engines.vectors import normalise

logger = logging.getLogger("engines.pooling")


class PoolingEngine:
    """A loaded model that makes vectors (`engines.base.Embeds`, `Resident`). Make it with `open`."""

    def __init__(self, thread: PoolingThread, opened: OpenedPooler, stall_timeout: float) -> None:
        """A pass that takes longer than ``stall_timeout`` seconds counts as hung."""
        self._thread = thread
        self._info = opened.info
        self._n_vocab = opened.vocabulary.n_vocab
        self._tokenizer = Tokenizer(opened.vocabulary, opened.info.context_length, ends_texts=True)
        self._stall_timeout = stall_timeout
        self._closed = False

    @classmethod
    async def open(
        cls, open_pooler: Callable[[CheckWanted], Pooler], run: Runner, stall_timeout: float
    ) -> PoolingEngine:
        """Load a model on a thread of ``run``; cancelling gives the load up. Raises `ModelLoadError`."""
        thread = PoolingThread(open_pooler, asyncio.get_running_loop(), run)
        thread.start()
        try:
            opened = await thread.opened
        except asyncio.CancelledError:
            thread.stop(EngineError("the load was given up"))
            raise
        return cls(thread, opened, stall_timeout)

    @property
    def info(self) -> EngineInfo:
        return self._info

    async def tokenize(
        self, text: str, *, add_special: bool = True, most: int | None = None
    ) -> tuple[int, ...]:
        return await self._tokenizer.tokenize(text, add_special=add_special, most=most)

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        return await self._tokenizer.detokenize(token_ids)

    async def embed(self, inputs: Sequence[Sequence[int]], *, request_id: str = "") -> Embeddings:
        if self._closed:
            raise EngineError("the engine is closed")
        check_inputs(inputs, context_length=self._info.context_length, n_vocab=self._n_vocab)
        rows = await self._thread.compute(inputs)
        return Embeddings(normalise(rows), tuple(map(len, inputs)))

    async def score(self, pairs: Sequence[Pair], *, request_id: str = "") -> Scores:
        raise UnsupportedFeature(f"model {self._info.model} ranks no documents", param="model")

    async def health(self) -> Health:
        return Health(False, "closed") if self._closed else self._thread.health(self._stall_timeout)

    def stats(self) -> EngineStats:
        return self._thread.stats

    async def sleep(self) -> None:
        raise UnsupportedFeature(f"{self._info.engine} cannot sleep: unload the model instead")

    async def wake(self) -> None:
        raise UnsupportedFeature(f"{self._info.engine} cannot sleep: unload the model instead")

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._thread.stop(EngineError("the model is being unloaded"))
        await self._tokenizer.close()
        if not await asyncio.to_thread(self._thread.join, self._stall_timeout):
            logger.error("the thread of %s hangs; its memory is not freed", self._info.model)
