"""The event loop's side of an engine that pools whole texts on a `PoolingThread`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from engines.base import Embeddings, EngineInfo, EngineStats, Health, Pair, Scores
from engines.batching.pooling import PoolingThread
from engines.errors import EngineError, UnsupportedFeature
from engines.limits import check_inputs
from engines.text.tokens.tokenizer import TextVocabulary, Tokenizer
from engines.vectors import normalise

logger = logging.getLogger("engines.batching")


class PooledVocabulary(TextVocabulary, Protocol):
    """A vocabulary that names its tokens too."""

    def label(self, token: int) -> bytes: ...


class PoolingEngine:
    """A loaded model that pools texts (`engines.base.Embeds`, `Resident`).

    It makes vectors and never sleeps, unless an engine knows more ways.
    """

    def __init__(
        self, thread: PoolingThread, info: EngineInfo, vocabulary: PooledVocabulary, stall_timeout: float
    ) -> None:
        """A pass that takes longer than ``stall_timeout`` seconds counts as hung."""
        self._thread = thread
        self._info = info
        self._vocabulary = vocabulary
        self._tokenizer = Tokenizer(vocabulary, info.context_length, ends_texts=True)
        self._stall_timeout = stall_timeout
        self._closed = False

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
        return [*map(self._vocabulary.label, token_ids)]

    async def embed(self, inputs: Sequence[Sequence[int]], *, request_id: str = "") -> Embeddings:
        if self._closed:
            raise EngineError("the engine is closed")
        if "embeddings" not in self._info.capabilities:
            raise UnsupportedFeature(f"model {self._info.model} makes no embeddings", param="model")
        check_inputs(inputs, context_length=self._info.context_length, n_vocab=self._vocabulary.n_vocab)
        rows = await self._thread.pool(inputs)
        return Embeddings(normalise(rows), tuple(map(len, inputs)))

    async def score(self, pairs: Sequence[Pair], *, most: int | None = None, request_id: str = "") -> Scores:
        raise UnsupportedFeature(f"model {self._info.model} ranks no documents", param="model")

    async def health(self) -> Health:
        return Health(False, "closed") if self._closed else self._thread.health(self._stall_timeout)

    def stats(self) -> EngineStats:
        return self._thread.stats()

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
        if await self._thread_ended():
            self._release_model()
        else:
            # Freeing weights under a thread that still computes would crash the process.
            logger.error("the engine thread of %s hangs; its memory is not freed", self._info.model)

    async def _thread_ended(self) -> bool:
        """Wait until the engine thread, which was told to stop, is done; False if it hangs."""
        return await asyncio.to_thread(self._thread.join, self._stall_timeout)

    def _release_model(self) -> None:
        """Give up what the engine thread did not free."""
