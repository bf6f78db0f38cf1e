"""vLLM's engine of models that pool whole texts. Everything here runs on the event loop's thread."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engines.base import Embeddings, EngineInfo, Pair, Scores, Vectors
from engines.errors import EngineError, UnsupportedFeature
from engines.limits import check_inputs
from engines.load_spec import LoadSpec
from engines.text.tokens.tokenizer import Tokenizer
from engines.vectors import normalise
from engines.vllm.assembly import described
from engines.vllm.folder import purpose
from engines.vllm.launch import Launched
from engines.vllm.resident import VllmResident, start
from engines.vllm.stream import DIED, translate
from engines.vllm.vocabulary import VllmVocabulary


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts of an engine that pools."""

    launched: Launched
    vocabulary: VllmVocabulary
    info: EngineInfo


class VllmPoolingEngine(VllmResident):
    """A model that makes vectors (`engines.base.Embeds`). Make it with `load`."""

    def __init__(self, parts: _Parts, stall_timeout: float) -> None:
        super().__init__(parts.launched, parts.info, stall_timeout)
        self._n_vocab = parts.vocabulary.n_vocab
        self._tokenizer = Tokenizer(parts.vocabulary, parts.info.context_length, ends_texts=True)
        self._numbers = itertools.count()
        self._running: set[asyncio.Task[Vectors]] = set()

    @classmethod
    async def load(cls, spec: LoadSpec, progress: Callable[[float], None] | None = None) -> VllmPoolingEngine:
        """As `engines.vllm.resident.start`."""
        return cls(await start(spec, progress, _assemble), spec.stall_timeout)

    async def tokenize(
        self, text: str, *, add_special: bool = True, most: int | None = None
    ) -> tuple[int, ...]:
        return await self._tokenizer.tokenize(text, add_special=add_special, most=most)

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        return await self._tokenizer.detokenize(token_ids)

    async def embed(self, inputs: Sequence[Sequence[int]], *, request_id: str = "") -> Embeddings:
        self._check_open()
        if self._llm.errored:
            raise EngineError(DIED)
        check_inputs(inputs, context_length=self._info.context_length, n_vocab=self._n_vocab)
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._encode(tokens, request_id)) for tokens in inputs]
        self._running.update(tasks)
        try:
            rows = await asyncio.gather(*tasks)
        except asyncio.CancelledError:
            if self._closed:
                raise EngineError("the model is being unloaded") from None
            raise
        finally:
            self._running.difference_update(tasks)
            for task in tasks:
                task.cancel()
        return Embeddings(normalise(np.stack(rows)), tuple(map(len, inputs)))

    async def score(self, pairs: Sequence[Pair], *, request_id: str = "") -> Scores:
        raise UnsupportedFeature(f"model {self._info.model} ranks no documents", param="model")

    async def _encode(self, tokens: Sequence[int], request_id: str) -> Vectors:
        from vllm.pooling_params import PoolingParams

        name = f"{request_id}-{next(self._numbers)}"
        prompt = {"type": "token", "prompt_token_ids": list(tokens)}
        found: Any = None
        try:
            async for output in self._llm.encode(prompt, PoolingParams(task="embed"), name):
                found = output
        except Exception as error:
            raise translate(error) from error
        if found is None or getattr(found, "error", None) is not None:
            raise EngineError(f"vLLM made no vector: {getattr(found, 'error', None)}")
        row = np.asarray(found.outputs.data.float().cpu().numpy(), dtype=np.float32)
        if not np.isfinite(row).all():
            raise EngineError("the model made a vector with numbers that are none (NaN or infinite)")
        return row

    async def _end_requests(self, reason: EngineError) -> None:
        running = [*self._running]
        for task in running:
            task.cancel()
        await self._tokenizer.close()
        await asyncio.gather(*running, return_exceptions=True)


def _assemble(spec: LoadSpec, launched: Launched) -> _Parts:
    """Raises `ModelLoadError`, and has closed ``launched`` then."""
    try:
        model = launched.config.model_config
        vocabulary = VllmVocabulary(launched.llm.renderer.get_tokenizer(), model.get_vocab_size())
        _, pooling = purpose(spec)
        lengths = spec.dimensions or tuple(model.matryoshka_dimensions or ())
        info = described(
            spec,
            launched,
            {"embeddings"},
            pooling=pooling or str(model.pooler_config.seq_pooling_type).lower(),
            embedding_length=model.embedding_size,
            matryoshka=spec.matryoshka or bool(model.is_matryoshka),
            dimensions=lengths,
        )
        return _Parts(launched, vocabulary, info)
    except BaseException:
        launched.end()
        raise
