"""A `llama_context` that pools whole texts into vectors or scores. Used by one thread at a time."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np

from engines.base import Vectors
from engines.errors import EngineError
from engines.llamacpp import native_context, native_log
from engines.llamacpp.model import LlamaModel
from engines.llamacpp.pooled_sizes import MOST_TEXTS, PooledSize
from engines.llamacpp.token_batch import TokenBatch
from engines.models.purpose import Pooling

_POOLING: dict[Pooling, int] = {"mean": 1, "cls": 2, "last": 3, "rank": 4}  # enum llama_pooling_type


class PooledContext:
    """Owns one native context over ``model``; a `Pooler`. A text is computed whole, with others."""

    def __init__(self, model: LlamaModel, size: PooledSize, *, threads: int, offload: bool = False) -> None:
        self.model = model
        self.limit = size.tokens
        self.most_tokens = size.batch
        self.most_texts = _most_texts(size)
        self._handle = _create(model, size, threads, offload)
        # An encoder keeps nothing; what a decoder does is cleared before each pass.
        self._memory = lib.llama_get_memory(self._handle)
        self._run = lib.llama_decode if lib.llama_model_has_decoder(model.handle) else lib.llama_encode
        self._batch = TokenBatch(size.tokens)
        self._batch.wanted[:] = 1  # a text is pooled of all of its tokens
        scores = size.pooling == "rank"
        count = lib.llama_model_n_cls_out if scores else lib.llama_model_n_embd_out
        self.width = max(1, int(count(model.handle)))

    def compute(self, texts: Seq[Seq[int]]) -> Vectors:
        """One row for each of ``texts``, which together have at most `limit` tokens. Raises `EngineError`."""
        count = 0
        for slot, tokens in enumerate(texts):
            self._batch.put(count, slot, 0, tokens)
            count += len(tokens)
        if self._memory:
            lib.llama_memory_clear(self._memory, False)
        native_log.forget_errors()
        code = self._run(self._handle, self._batch.native(count))
        if code != 0:
            raise EngineError(f"llama.cpp failed with code {code}: {native_log.recent_errors()}")
        return np.stack([self._row(slot) for slot in range(len(texts))])

    def set_threads(self, threads: int) -> None:
        lib.llama_set_n_threads(self._handle, threads, threads)

    def close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            lib.llama_free(handle)

    def _row(self, slot: int) -> Vectors:
        found = lib.llama_get_embeddings_seq(self._handle, slot)
        if not found:
            raise EngineError(
                f"llama.cpp gives no embedding of this text with {self.model.path.name}: it cannot pool the "
                "states of this model"
            )
        return np.array(np.ctypeslib.as_array(found, shape=(self.width,)), dtype=np.float32)


def _most_texts(size: PooledSize) -> int:
    return min(MOST_TEXTS, size.tokens)  # llama.cpp ends the process over more sequences than tokens


def _create(model: LlamaModel, size: PooledSize, threads: int, offload: bool) -> Any:
    params = native_context.parameters(threads, offload)
    params.n_ctx = params.n_batch = params.n_outputs_max = size.tokens
    params.n_ubatch = size.step
    params.n_seq_max = _most_texts(size)
    params.embeddings = True
    params.pooling_type = _POOLING[size.pooling]
    params.kv_unified = True
    return native_context.create(
        model, params, what=f"texts of {size.tokens} tokens", smaller="CONTEXT_LENGTH"
    )
