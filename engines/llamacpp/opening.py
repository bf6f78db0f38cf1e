"""From a model file to a `LlamaStepper`. Everything here runs on a loading thread."""

from __future__ import annotations

import logging
from dataclasses import replace

import llama_cpp.llama_cpp as lib
import psutil

from engines.base import EngineInfo
from engines.errors import CannotLoad
from engines.llamacpp import threads
from engines.llamacpp.context import ContextSize, LlamaContext, Slice, scored_at_once
from engines.llamacpp.kv_cache import KvCache, PooledKvCache, SplitKvCache
from engines.llamacpp.model import LlamaModel, ReportLoading
from engines.llamacpp.model_cache import ModelCache
from engines.llamacpp.options import LlamaOptions
from engines.llamacpp.pacing import LlamaPacer
from engines.llamacpp.prefix_cache import ALIGNMENT, LlamaPrefixCache
from engines.llamacpp.scheduler import LlamaScheduler
from engines.llamacpp.sizes import choose_sizes, memory_of, stash_limit, weights_of
from engines.llamacpp.stash import Stash
from engines.llamacpp.stepper import LlamaStepper
from engines.text import grammar
from engines.text.ranking.judge import can_judge
from engines.text.ranking.pair_template import is_for_pairs

logger = logging.getLogger("engines.llamacpp")

# A model of so many parameters may take a minute on a CPU for as many tokens as others take at once, and
# what takes no step for a minute counts as hung.
SLOW = 16_000_000_000


def load_and_open(options: LlamaOptions, models: ModelCache, report: ReportLoading) -> LlamaStepper:
    """Load the weights, unless another engine has, and open a context over them. Raises `ModelLoadError`."""
    model = models.acquire(
        options.path,
        -1 if offloads(options) else 0,
        report,
        projector=options.projector,
        threads=options.threads,
    )
    try:
        return open_stepper(options, models, model)
    except BaseException:
        models.release(model)
        raise


def open_stepper(options: LlamaOptions, models: ModelCache, model: LlamaModel) -> LlamaStepper:
    """A context over weights that are loaded, and what runs it. Raises `ModelLoadError`."""
    offload = offloads(options)
    context_length, size = choose_sizes(options, model, psutil.virtual_memory().available)
    notes = models.notes(model)
    count = options.threads or notes.threads or threads.usable_cores()
    drafts = options.ngram_draft if model.can_share_prefix else 0  # what is refused is cut off
    batch = max(size.batch, model.projector.at_once if model.projector is not None else 0)
    context = LlamaContext(model, replace(size, drafts=drafts, batch=batch), threads=count, offload=offload)
    if options.threads is None and notes.threads is None:
        count = notes.threads = _choose_threads(context, count)
    kv = _kv_cache(context, size)
    stashed = stash_limit(size, context_length) if options.deterministic else 0
    prefixes = LlamaPrefixCache(
        kv,
        enabled=options.cache_prefixes and model.can_share_prefix,
        idle_cell_budget=model.idle_cell_budget() if size.pooled and not offload else 2**31,
        stash=Stash(kv, limit=stashed) if stashed and isinstance(kv, PooledKvCache) else None,
    )
    scheduler = LlamaScheduler(
        kv,
        prefixes,
        max_running=options.max_sequences,
        batch_size=context.batch_size,
        piece=ALIGNMENT if offload or model.parameters < SLOW else ALIGNMENT // 4,
        deterministic=options.deterministic,
        scored_at_once=scored_at_once(model.n_vocab),
        drafts=drafts,
    )
    info = EngineInfo(
        engine="llama_cpp",
        model=options.name,
        context_length=context_length,
        longest_context=model.n_ctx_train,
        max_sequences=options.max_sequences,
        devices=("gpu" if offload else "cpu",),
        capabilities=_capabilities(model, options, offload),
        memory_asleep=weights_of(model),
        memory=memory_of(model, size.cells + (0 if offload else stashed)),  # a GPU has no stash
        details={
            "description": model.description,
            "size": model.size,
            "threads": count,
            "kv_cells": size.cells,
            "kv_layout": "pooled" if size.pooled else "split",
        },
    )
    return LlamaStepper(model, context, kv, scheduler, LlamaPacer(batch_size=context.batch_size), info)


def _capabilities(model: LlamaModel, options: LlamaOptions, offload: bool) -> frozenset[str]:
    chat = {"chat"} if model.chat_template and not is_for_pairs(model.chat_template) else set()
    rerank = {"rerank"} if can_judge(options.rerank_template or model.rerank_template, model) else set()
    sleep = set() if offload else {"sleep"}
    structured = {"structured"} if grammar.is_installed() else set()
    fim = {"fim"} if model.fim is not None else set()
    senses = model.projector.senses if chat and model.projector is not None else frozenset()
    return frozenset({"adapters", "completion"} | chat | fim | rerank | senses | sleep | structured)


def offloads(options: LlamaOptions) -> bool:
    """Whether layers go to a GPU. Raises `ModelLoadError` if they must and cannot."""
    can = bool(lib.llama_supports_gpu_offload())
    if options.offload and not can:
        raise CannotLoad(
            "a GPU was asked for (DEVICE_TYPE), but this llama-cpp-python was built without GPU support: "
            'install it again with CMAKE_ARGS="-DGGML_CUDA=on" or set DEVICE_TYPE=auto'
        )
    return can and options.offload is not False


def _kv_cache(context: LlamaContext, size: ContextSize) -> KvCache:
    if size.pooled:
        return PooledKvCache(context, cells=size.cells, slots=size.slots)
    return SplitKvCache(context, per_slot=size.cells // size.slots, slots=size.slots)


def _choose_threads(context: LlamaContext, most: int) -> int:
    """Measure a few thread counts with single-token steps and keep the fastest."""
    probe = [Slice(0, 0, [0], outputs=1)]

    def run(count: int) -> None:
        context.set_threads(count)
        context.truncate(0, 0)
        context.decode(probe)

    best, medians = threads.fastest(threads.candidates(most), run)
    context.set_threads(best)
    context.truncate(0, 0)
    measured = ", ".join(f"{count}: {1e3 * seconds:.1f} ms" for count, seconds in medians.items())
    logger.info("computing with %d threads (a step with %s)", best, measured)
    return best
