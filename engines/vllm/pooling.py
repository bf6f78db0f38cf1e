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
from engines.text.ranking.labels import check_labels, scores_of
from engines.text.ranking.pair_inputs import PairInputs
from engines.text.ranking.pair_template import is_plain
from engines.text.tokens.tokenizer import Tokenizer
from engines.vectors import normalise
from engines.vllm.assembly import described
from engines.vllm.folder import purpose
from engines.vllm.launch import Launched
from engines.vllm.pairs import PairLayout, labels_of
from engines.vllm.resident import VllmResident, start
from engines.vllm.stream import DIED, translate
from engines.vllm.vocabulary import VllmVocabulary


@dataclass(frozen=True, slots=True)
class _Ranking:
    """What a cross-encoder needs besides: how pairs are put together, and the labels of its scores."""

    layout: PairLayout
    labels: list[str]
    template: str | None


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts of an engine that pools; ``ranking`` is that of one that makes scores instead of vectors."""

    launched: Launched
    vocabulary: VllmVocabulary
    info: EngineInfo
    ranking: _Ranking | None


class VllmPoolingEngine(VllmResident):
    """A model that makes vectors or scores (`engines.base.Embeds`). Make it with `load`."""

    def __init__(self, parts: _Parts, stall_timeout: float) -> None:
        super().__init__(parts.launched, parts.info, stall_timeout)
        self._vocabulary = parts.vocabulary
        self._tokenizer = Tokenizer(parts.vocabulary, parts.info.context_length, ends_texts=True)
        self._ranking = ranking = parts.ranking
        self._pairs = (
            None
            if ranking is None
            else PairInputs(
                ranking.layout.frame, self._tokenizer, parts.info.context_length, ranking.template
            )
        )
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

    def labels(self, token_ids: Sequence[int]) -> list[bytes]:
        return [*map(self._vocabulary.label, token_ids)]

    async def embed(self, inputs: Sequence[Sequence[int]], *, request_id: str = "") -> Embeddings:
        from vllm.pooling_params import PoolingParams

        self._check_runs()
        if self._ranking is not None:
            raise UnsupportedFeature(f"model {self._info.model} makes no embeddings", param="model")
        n_vocab = self._vocabulary.n_vocab
        check_inputs(inputs, context_length=self._info.context_length, n_vocab=n_vocab)
        rows = await self._pool([(tokens, PoolingParams(task="embed")) for tokens in inputs], request_id)
        return Embeddings(normalise(rows), tuple(map(len, inputs)))

    async def score(self, pairs: Sequence[Pair], *, most: int | None = None, request_id: str = "") -> Scores:
        from vllm.pooling_params import PoolingParams

        self._check_runs()
        if self._ranking is None or self._pairs is None:
            raise UnsupportedFeature(f"model {self._info.model} ranks no documents", param="model")
        wanted = []
        for each in await self._pairs.of(pairs, most):
            place = self._ranking.layout.first_of_second_type(each)
            extra = None if place is None else {"compressed_token_type_ids": place}
            # The logits, of which nothing is made yet.
            params = PoolingParams(task="classify", use_activation=False, extra_kwargs=extra)
            wanted.append((each.tokens, params))
        rows = await self._pool(wanted, request_id)
        return Scores(scores_of(self._ranking.labels, rows), tuple(len(tokens) for tokens, _ in wanted))

    def _check_runs(self) -> None:
        self._check_open()
        if self._llm.errored:
            raise EngineError(DIED)

    async def _pool(self, inputs: Sequence[tuple[Sequence[int], Any]], request_id: str) -> Vectors:
        """One row for each of ``inputs``, tokens and their ``PoolingParams``."""
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._encode(tokens, params, request_id)) for tokens, params in inputs]
        self._running.update(tasks)
        try:
            return np.stack(await asyncio.gather(*tasks))
        except asyncio.CancelledError:
            if self._closed:
                raise EngineError("the model is being unloaded") from None
            raise
        finally:
            self._running.difference_update(tasks)
            for task in tasks:
                task.cancel()

    async def _encode(self, tokens: Sequence[int], params: Any, request_id: str) -> Vectors:
        name = f"{request_id}-{next(self._numbers)}"
        prompt = {"type": "token", "prompt_token_ids": list(tokens)}
        found: Any = None
        try:
            async for output in self._llm.encode(prompt, params, name):
                found = output
        except Exception as error:
            raise translate(error) from error
        if found is None or getattr(found, "error", None) is not None:
            raise EngineError(f"vLLM pooled nothing: {getattr(found, 'error', None)}")
        row = np.asarray(found.outputs.data.float().cpu().numpy(), dtype=np.float32)
        if not np.isfinite(row).all():
            raise EngineError("the model's numbers are none (NaN or infinite)")
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
        made_for, pooling = purpose(spec)
        if made_for == "rerank":
            info = described(spec, launched, {"rerank"}, pooling="rank")
            return _Parts(launched, vocabulary, info, _ranking(spec, launched, vocabulary))
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
        return _Parts(launched, vocabulary, info, None)
    except BaseException:
        launched.end()
        raise


def _ranking(spec: LoadSpec, launched: Launched, vocabulary: VllmVocabulary) -> _Ranking:
    labels = labels_of(launched.config.model_config.hf_config)
    check_labels(spec.name, labels)
    template = spec.rerank_template or vocabulary.rerank_template
    has_template = template is not None and is_plain(template)
    layout = PairLayout.of(launched.llm.renderer.get_tokenizer(), has_template=has_template)
    return _Ranking(layout, labels, template)
