"""The llama.cpp engine as the rest of the house sees it. Everything here runs on the event loop's thread."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as lib
import psutil

from engines.base import EngineInfo, EngineStats, GenerationRequest, Health, Prompt, Structure
from engines.errors import EngineError, ModelLoadError, UnsupportedFeature
from engines.limits import (
    check_token_ids,
    generation_limit,
    no_chat_template,
    no_structures,
    refuse_extras,
    refuse_tools,
)
from engines.llamacpp import threads
from engines.llamacpp.context import ContextSize, LlamaContext, Slice
from engines.llamacpp.kv_cache import KvCache, PooledKvCache, SplitKvCache
from engines.llamacpp.model import LlamaModel, ModelCache, Progress
from engines.llamacpp.pacing import PrefillPacer
from engines.llamacpp.sampler import Sampler
from engines.llamacpp.scheduler import Scheduler
from engines.llamacpp.sequence import Sequence
from engines.llamacpp.worker import Worker
from engines.machine.dedicated_thread import in_own_thread
from engines.sizing import AUTO_KV_MEMORY_SHARE, WORK_SPACE, auto_context
from engines.stream import ChunkStream, ended, resume
from engines.text.output import TextAssembler
from engines.text.renderer import ChatTemplate, TemplateWorker

logger = logging.getLogger("engines.llamacpp")

CELL_GRANULE = 256  # llama.cpp rounds contexts up to this
# A full context for every sequence is taken unasked if it is this cheap.
AUTO_SPLIT_MEMORY_SHARE = 1 / 16
# Tokenising more text than this would hold up the loop.
INLINE_TEXT = 4096


@dataclass(frozen=True, slots=True)
class LlamaOptions:
    """How to load a model; None lets the engine choose. ``context_length`` and ``kv_cells`` in tokens."""

    name: str
    path: Path
    context_length: int | None = None
    kv_cells: int | None = None
    max_sequences: int = 32
    cached_prefixes: int = 32
    threads: int | None = None
    offload: bool | None = None  # None: if this build can
    cache_prefixes: bool = True
    stall_timeout: float = 60.0


class LlamaEngine:
    """One context with its own thread over shared weights. Make it with `load`."""

    def __init__(
        self,
        options: LlamaOptions,
        models: ModelCache,
        model: LlamaModel,
        worker: Worker,
        info: EngineInfo,
        templates: TemplateWorker,
    ) -> None:
        self._info = info
        self._options = options
        self._models = models
        self._model = model
        self._worker = worker
        self._templates = templates
        source = model.chat_template
        self._template = (
            ChatTemplate(source, bos_token=model.bos_text, eos_token=model.eos_text, worker=self._templates)
            if source
            else None
        )
        self._closed = False

    @classmethod
    async def load(
        cls, options: LlamaOptions, models: ModelCache, progress: Callable[[float], None] | None = None
    ) -> LlamaEngine:
        """Load weights and make a context, off the loop; cancelling gives the load up.

        Raises `ModelLoadError`. ``progress`` gets 0..1, from the loading thread.
        """
        given_up = threading.Event()

        def report(fraction: float) -> bool:
            if progress is not None:
                progress(fraction)
            return not given_up.is_set()

        loop = asyncio.get_running_loop()
        templates = models.acquire_templates(options.path)
        build = in_own_thread(lambda: _build(options, models, loop, report), "llamacpp-load")
        try:
            parts = await asyncio.shield(build)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                given_up.set()
                build.add_done_callback(partial(_discard, models))
            await models.release_templates(templates)
            raise
        parts.worker.start()
        return cls(options, models, parts.model, parts.worker, parts.info, templates)

    @property
    def info(self) -> EngineInfo:
        return self._info

    async def render_chat(
        self,
        messages: Seq[Mapping[str, Any]],
        *,
        tools: Seq[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        template_args: Mapping[str, Any] | None = None,
    ) -> Prompt:
        refuse_tools(tools)
        if self._closed:
            raise EngineError("the engine is closed")
        if self._template is None:
            raise no_chat_template(self._info.model)
        text = await self._template.render(
            messages, add_generation_prompt=add_generation_prompt, template_args=template_args
        )
        # Templates that write BOS themselves must not get a second one.
        bos = self._model.bos_text
        tokens = await self.tokenize(text, add_special=not (bos and text.startswith(bos)))
        return Prompt(tokens, text)

    def answer_parser(
        self, tools: Seq[Mapping[str, Any]] | None = None, prompt: Prompt | None = None
    ) -> None:
        refuse_tools(tools)

    async def tokenize(self, text: str, *, add_special: bool = True) -> tuple[int, ...]:
        if len(text) <= INLINE_TEXT:
            return self._model.tokenize(text, add_special=add_special)
        return await asyncio.to_thread(self._model.tokenize, text, add_special=add_special)

    async def detokenize(self, token_ids: Seq[int]) -> str:
        check_token_ids(token_ids, self._model.n_vocab)
        return self._model.detokenize(token_ids)

    async def prepare(self, structure: Structure) -> None:
        raise no_structures()

    def generate(self, request: GenerationRequest) -> ChunkStream:
        if self._closed or not self._worker.is_alive:
            raise self._worker.failure or EngineError("the engine is closed")
        refuse_extras(request)
        limit = generation_limit(
            request, context_length=self._info.context_length, n_vocab=self._model.n_vocab
        )
        assembler = TextAssembler(request.stop, request.logprobs is not None)
        model = self._model
        last = resume(request, assembler, limit=limit, piece=model.piece, is_end=model.is_end)
        if last is not None:
            return ended(last)
        sampler = Sampler(request, model.eog_ids, model.n_vocab)
        stream = ChunkStream(on_close=lambda: self._worker.abort(sequence))
        sequence = Sequence(request, stream, sampler, assembler, limit)
        self._worker.submit(sequence)
        return stream

    async def health(self) -> Health:
        worker = self._worker
        if self._closed:
            return Health(False, "closed")
        if not worker.is_alive:
            return Health(False, str(worker.failure or "the engine thread ended"))
        stalled = time.monotonic() - worker.last_progress
        if worker.is_busy and stalled > self._options.stall_timeout:
            return Health(False, f"no step for {stalled:.0f} s with work waiting")
        return Health(True)

    def stats(self) -> EngineStats:
        return self._worker.stats

    async def sleep(self) -> None:
        """Free the KV cache and the work space; weights, vocabulary and the template's process stay."""
        if "sleep" not in self._info.capabilities:
            raise UnsupportedFeature("weights on a GPU would stay there: unload the model instead")
        await self._end_worker(EngineError("the model was put to sleep"))

    async def wake(self) -> None:
        loop = asyncio.get_running_loop()
        parts = await in_own_thread(
            lambda: _open(self._options, self._models, self._model, loop), "llamacpp-wake"
        )
        self._worker, self._info = parts.worker, parts.info
        self._worker.start()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await self._models.release_templates(self._templates)
        try:
            await self._end_worker(EngineError("the model is being unloaded"))
        except EngineError as error:
            # Freeing weights under a thread that still computes would crash the process.
            logger.error("%s; its memory is not freed", error.message)
        else:
            self._models.release(self._model)

    async def _end_worker(self, reason: EngineError) -> None:
        """End the engine thread, which frees its context. Raises `EngineError` if it hangs."""
        self._worker.stop(reason)
        if not await asyncio.to_thread(self._worker.join, self._options.stall_timeout):
            raise EngineError(f"the engine thread of {self._info.model} hangs")


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a load makes; the worker has not started."""

    model: LlamaModel
    context: LlamaContext
    worker: Worker
    info: EngineInfo


def _discard(models: ModelCache, build: asyncio.Future[_Parts]) -> None:
    """Free what a load made after nobody wanted it any more."""
    if not build.cancelled() and build.exception() is None:
        build.result().context.close()
        models.release(build.result().model)


def _build(
    options: LlamaOptions, models: ModelCache, loop: asyncio.AbstractEventLoop, progress: Progress
) -> _Parts:
    model = models.acquire(options.path, -1 if _offload(options) else 0, progress)
    try:
        return _open(options, models, model, loop)
    except BaseException:
        models.release(model)
        raise


def _open(
    options: LlamaOptions, models: ModelCache, model: LlamaModel, loop: asyncio.AbstractEventLoop
) -> _Parts:
    """A context over weights that are loaded, and what runs it."""
    offload = _offload(options)
    context_length, size = choose_sizes(options, model, psutil.virtual_memory().available)
    notes = models.notes(model)
    count = options.threads or notes.threads or threads.usable_cores()
    context = LlamaContext(model, size, threads=count, offload=offload)
    if options.threads is None and notes.threads is None:
        count = notes.threads = _choose_threads(context, count)
    kv = _kv_cache(context, size)
    scheduler = Scheduler(
        kv,
        max_running=options.max_sequences,
        batch_size=context.batch_size,
        cache_prefixes=options.cache_prefixes and model.can_share_prefix,
        idle_cell_budget=model.idle_cell_budget() if size.pooled and not offload else 2**31,
    )
    worker = Worker(model, context, kv, scheduler, PrefillPacer(batch_size=context.batch_size), loop)
    info = EngineInfo(
        engine="llama_cpp",
        model=options.name,
        context_length=context_length,
        max_sequences=options.max_sequences,
        devices=("gpu" if offload else "cpu",),
        capabilities=_capabilities(model, offload),
        memory_asleep=model.size,
        memory=model.size + size.cells * model.kv_bytes_per_token() + WORK_SPACE,
        details={
            "description": model.description,
            "size": model.size,
            "threads": count,
            "kv_cells": size.cells,
            "kv_layout": "pooled" if size.pooled else "split",
        },
    )
    return _Parts(model, context, worker, info)


def _capabilities(model: LlamaModel, offload: bool) -> frozenset[str]:
    chat = {"chat"} if model.chat_template else set()
    sleep = set() if offload else {"sleep"}
    return frozenset({"completion"} | chat | sleep)


def _offload(options: LlamaOptions) -> bool:
    """Whether layers go to a GPU. Raises `ModelLoadError` if they must and cannot."""
    can = bool(lib.llama_supports_gpu_offload())
    if options.offload and not can:
        raise ModelLoadError(
            "a GPU was asked for (DEVICE_TYPE), but this llama-cpp-python was built without GPU support: "
            'install it again with CMAKE_ARGS="-DGGML_CUDA=on" or set DEVICE_TYPE=auto'
        )
    return can and options.offload is not False


def choose_sizes(options: LlamaOptions, model: LlamaModel, free_memory: int) -> tuple[int, ContextSize]:
    """Context length in tokens, and the size and layout of the KV cache.

    Given sizes are kept; a context never exceeds the cells. A cache that holds a full context for every
    sequence is split, as there is nothing to gain from a pool then.
    """
    context = options.context_length or auto_context(model.n_ctx_train)
    affordable = free_memory // max(1, model.kv_bytes_per_token())
    whole = _round_up(context) * options.max_sequences
    cells = options.kv_cells
    if cells is None and whole <= affordable * AUTO_SPLIT_MEMORY_SHARE:
        cells = whole
    elif cells is None:
        least = context if options.context_length else CELL_GRANULE
        cells = max(min(2 * context, int(affordable * AUTO_KV_MEMORY_SHARE)), least)
    cells = _round_up(cells)
    context = min(context, cells)
    if cells >= whole:
        return context, ContextSize(cells=whole, slots=options.max_sequences, pooled=False)
    slots = options.max_sequences + (options.cached_prefixes if options.cache_prefixes else 0)
    return context, ContextSize(cells=cells, slots=slots)


def _kv_cache(context: LlamaContext, size: ContextSize) -> KvCache:
    if size.pooled:
        return PooledKvCache(context, cells=size.cells, slots=size.slots)
    return SplitKvCache(context, per_slot=size.cells // size.slots, slots=size.slots)


def _round_up(cells: int) -> int:
    return -(-cells // CELL_GRANULE) * CELL_GRANULE


def _choose_threads(context: LlamaContext, most: int) -> int:
    """Measure a few thread counts with single-token steps and keep the fastest."""
    probe = [Slice(0, 0, [0], wants_logits=True)]

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
