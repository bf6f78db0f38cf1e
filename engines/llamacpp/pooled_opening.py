"""From a model file to a `PooledContext`. Everything here runs on a loading thread."""

from __future__ import annotations

import logging
from typing import NamedTuple

from engines.base import EngineInfo
from engines.errors import CannotLoad
from engines.llamacpp import threads
from engines.llamacpp.model import LlamaModel, ReportLoading
from engines.llamacpp.model_cache import ModelCache
from engines.llamacpp.opening import offloads
from engines.llamacpp.options import LlamaOptions
from engines.llamacpp.pairs import labels_of
from engines.llamacpp.pooled_context import PooledContext
from engines.llamacpp.pooled_sizes import pooled_size
from engines.models.facts import describe
from engines.models.purpose import Pooling, has_rank_head
from engines.text.ranking.labels import check_labels

logger = logging.getLogger("engines.llamacpp")

# Tokens of a text that threads are measured with.
PROBE = 64


class OpenedContext(NamedTuple):
    """A context over weights that are loaded, and what there is to say of it."""

    model: LlamaModel
    context: PooledContext
    info: EngineInfo


def load_pooled(options: LlamaOptions, models: ModelCache, report: ReportLoading) -> OpenedContext:
    """Load the weights, unless another engine has, and open a context over them. Raises `ModelLoadError`."""
    pooling = pooling_of(options)
    model = models.acquire(options.path, -1 if offloads(options) else 0, report)
    try:
        return open_pooled(options, models, model, pooling)
    except BaseException:
        models.release(model)
        raise


def pooling_of(options: LlamaOptions) -> Pooling:
    """How the states are pooled: as the catalog says, else the file. Raises `CannotLoad` if neither does."""
    pooling = options.pooling or describe(options.path).pooling
    if pooling is None:
        raise CannotLoad(
            f"{options.path.name} does not say how its embeddings are pooled: say so with `pooling` in "
            "models.yaml (mean, cls or last; the model's page tells which)"
        )
    if pooling == "rank" and describe(options.path).pooling != "rank" and not has_rank_head(options.path):
        raise CannotLoad(f"{options.path.name} has no head that makes scores: `pooling: rank` cannot be")
    return pooling


def open_pooled(
    options: LlamaOptions, models: ModelCache, model: LlamaModel, pooling: Pooling
) -> OpenedContext:
    """A context over weights that are loaded. Raises `ModelLoadError`."""
    offload = offloads(options)
    if pooling == "rank":
        check_labels(model.path.name, labels_of(model))
    facts = describe(options.path)
    size = pooled_size(
        options.context_length, model.n_ctx_train, pooling, facts.architecture, offload=offload
    )
    notes = models.notes(model)
    count = options.threads or notes.threads or threads.usable_cores()
    context = PooledContext(model, size, threads=count, offload=offload)
    if options.threads is None and notes.threads is None:
        count = notes.threads = _choose_threads(context, count)
    info = EngineInfo(
        engine="llama_cpp",
        model=options.name,
        context_length=size.tokens,
        longest_context=model.n_ctx_train,
        max_sequences=context.most_texts,
        devices=("gpu" if offload else "cpu",),
        capabilities=frozenset({_ABILITY[pooling]} | (set() if offload else {"sleep"})),
        memory=model.size + size.memory(model.kv_bytes_per_token(), model.n_vocab),
        memory_asleep=model.size,
        pooling=pooling,
        embedding_length=0 if pooling == "rank" else context.width,
        matryoshka=options.matryoshka,
        dimensions=options.dimensions,
        details={"description": model.description, "size": model.size, "threads": count},
    )
    return OpenedContext(model, context, info)


_ABILITY: dict[Pooling, str] = {
    "mean": "embeddings",
    "cls": "embeddings",
    "last": "embeddings",
    "rank": "rerank",
}


def _choose_threads(context: PooledContext, most: int) -> int:
    """Measure a few thread counts with short texts, and keep the fastest."""
    probe = [[0] * min(PROBE, context.limit)]

    def run(count: int) -> None:
        context.set_threads(count)
        context.compute(probe)

    best, medians = threads.fastest(threads.candidates(most), run)
    context.set_threads(best)
    measured = ", ".join(f"{count}: {1e3 * seconds:.1f} ms" for count, seconds in medians.items())
    logger.info("computing with %d threads (a text of %d tokens with %s)", best, len(probe[0]), measured)
    return best
