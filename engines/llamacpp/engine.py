"""The llama.cpp engine as the rest of the server sees it. Everything here runs on the event loop's thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import cast

from engines.base import Adapter, EngineStats, GenerationRequest, Media
from engines.batching.adapters import AdapterShelf
from engines.batching.engine import BatchingEngine
from engines.batching.thread import EngineThread, on_new_thread
from engines.errors import EngineError, RequestError, UnsupportedFeature
from engines.llamacpp.adapters import LlamaAdapter
from engines.llamacpp.drafting import NgramDrafter
from engines.llamacpp.media.encoder import MediaEncoder
from engines.llamacpp.model import LlamaModel
from engines.llamacpp.model_cache import ModelCache
from engines.llamacpp.opening import load_and_open, open_stepper
from engines.llamacpp.options import LlamaOptions
from engines.llamacpp.sampler import Sampler
from engines.llamacpp.sequence import LlamaSequence
from engines.llamacpp.stepper import LlamaStepper
from engines.machine.dedicated_thread import in_own_thread
from engines.stream import ChunkStream
from engines.text import grammar
from engines.text.answers.output import Output
from engines.text.templates.renderer import TemplateWorker
from engines.text.tokens.bad_words import token_runs

__all__ = ["LlamaEngine", "LlamaOptions"]


class LlamaEngine(BatchingEngine[LlamaSequence]):
    """One context with its own thread over shared weights. Make it with `load`."""

    def __init__(
        self, options: LlamaOptions, models: ModelCache, stepper: LlamaStepper, templates: TemplateWorker
    ) -> None:
        """Start a thread for ``stepper``, whose model is held in ``models``."""
        self._options = options
        self._models = models
        self._model: LlamaModel = stepper.vocabulary
        self._bos = self._model.bos_text
        self._drafts = stepper.drafts
        projector = self._model.projector
        self._encoder = None if projector is None else MediaEncoder(projector)
        self._encoding: dict[LlamaSequence, asyncio.Task[None]] = {}
        super().__init__(
            _start_thread(stepper),
            stepper.info,
            stepper.vocabulary,
            templates,
            stall_timeout=options.stall_timeout,
            allow_special_tokens=options.allow_special_tokens,
            answer_format=options.answer_format,
            grammar_vocabulary=self._model.grammar_vocabulary if grammar.is_installed() else None,
            rerank_template=options.rerank_template,
            adapters=AdapterShelf(self._load_adapter, self._free_adapter),
        )

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

        templates = models.acquire_templates(options.path)
        load = in_own_thread(lambda: load_and_open(options, models, report), "llamacpp-load")
        try:
            stepper = await asyncio.shield(load)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                given_up.set()
                load.add_done_callback(partial(_discard, models))
            await models.release_templates(templates)
            raise
        engine = cls(options, models, stepper, templates)
        try:
            for adapter in options.adapters:
                await engine.add_adapter(adapter)
        except BaseException:
            await engine.close()
            raise
        return engine

    def metrics(self) -> Mapping[str, float]:
        """What became of drafted tokens, and of images and sounds, where there are such."""
        drafted = self._drafts.as_metrics() if self._options.ngram_draft else {}
        return {**drafted, **(self._encoder.metrics() if self._encoder is not None else {})}

    def stats(self) -> EngineStats:
        """Requests whose media are being encoded wait."""
        stats = super().stats()
        return replace(stats, waiting=stats.waiting + len(self._encoding)) if self._encoding else stats

    def generate(self, request: GenerationRequest) -> ChunkStream:
        if request.prompt.media and request.prompt_logprobs is not None:
            raise RequestError(
                "prompts with images or sounds have no log probabilities: leave prompt_logprobs out",
                param="prompt_logprobs",
            )
        return super().generate(request)

    async def sleep(self) -> None:
        """Free the KV cache and the work space; weights, vocabulary and the template's process stay."""
        if "sleep" not in self._info.capabilities:
            raise UnsupportedFeature("weights on a GPU would stay there: unload the model instead")
        reason = EngineError("the model was put to sleep")
        self._give_up_encoding(reason)
        self._thread.stop(reason)
        if not await self._thread_ended():
            raise EngineError(f"the engine thread of {self._info.model} hangs")

    async def wake(self) -> None:
        stepper = await in_own_thread(
            lambda: open_stepper(self._options, self._models, self._model), "llamacpp-wake"
        )
        self._thread, self._info = _start_thread(stepper), self._described(stepper.info)
        self._drafts = stepper.drafts
        self._note_memory(self._adapters.nbytes)

    def _new_sequence(
        self, request: GenerationRequest, stream: ChunkStream, output: Output, limit: int
    ) -> LlamaSequence:
        bad_words = token_runs(request.sampling.bad_words, self._model)
        sampler = Sampler(request, self._model.eog_ids, self._model.n_vocab, bad_words)
        length = len(request.prompt.token_ids) + limit
        drafter = NgramDrafter(length) if self._options.ngram_draft else None
        adapter = self._adapters.of(request)
        return LlamaSequence(request, stream, output, limit, sampler, drafter, adapter=adapter)

    async def _load_adapter(self, adapter: Adapter) -> LlamaAdapter:
        return await in_own_thread(lambda: self._model.adapters.acquire(adapter), "llamacpp-adapter")

    async def _free_adapter(self, adapter: LlamaAdapter) -> None:
        if self._thread.is_alive:
            await self._thread.call(lambda stepper: cast(LlamaStepper, stepper).forget(adapter))
        await in_own_thread(lambda: self._model.adapters.release(adapter), "llamacpp-adapter")

    def _lacks_special(self, text: str) -> bool:
        # Templates that write BOS themselves must not get a second one.
        return not (self._bos and text.startswith(self._bos))

    async def _media_ids(self, media: Media) -> tuple[int, ...]:
        assert self._encoder is not None
        return await self._encoder.layout_ids(media)

    def _submit(self, thread: EngineThread[LlamaSequence], sequence: LlamaSequence) -> None:
        if sequence.request.prompt.media:
            self._encoding[sequence] = asyncio.ensure_future(self._submit_encoded(thread, sequence))
        else:
            thread.submit(sequence)

    async def _submit_encoded(self, thread: EngineThread[LlamaSequence], sequence: LlamaSequence) -> None:
        """Let ``thread`` have a sequence once its media are encoded, or tell who waits that they cannot."""
        assert self._encoder is not None
        prompt = sequence.request.prompt
        try:
            sequence.spans = await self._encoder.spans(prompt.token_ids, prompt.media)
            if not thread.is_alive:
                raise thread.failure or EngineError("the engine is closed")
        except EngineError as error:
            sequence.sampler.close()
            sequence.stream.fail(error)
        else:
            thread.submit(sequence)
        finally:
            self._encoding.pop(sequence, None)

    def _abort(self, thread: EngineThread[LlamaSequence], sequence: LlamaSequence) -> None:
        task = self._encoding.pop(sequence, None)
        if task is None:
            thread.abort(sequence)
        else:
            task.cancel()
            sequence.sampler.close()

    def _give_up_encoding(self, reason: EngineError) -> None:
        for sequence in [*self._encoding]:
            stream = sequence.stream
            self._abort(self._thread, sequence)
            stream.fail(reason)

    async def _release_templates(self) -> None:
        self._give_up_encoding(EngineError("the model is being unloaded"))
        if self._encoder is not None:
            await self._encoder.close()
        await self._models.release_templates(self._templates)

    def _release_model(self) -> None:
        for adapter in self._adapters.clear():
            self._model.adapters.release(adapter)
        self._models.release(self._model)


def _start_thread(stepper: LlamaStepper) -> EngineThread[LlamaSequence]:
    stats = EngineStats(kv_total=stepper.gauges().kv_total)
    thread = EngineThread(
        lambda _: stepper, asyncio.get_running_loop(), on_new_thread("llamacpp-engine"), stats
    )
    thread.start()
    return thread


def _discard(models: ModelCache, load: asyncio.Future[LlamaStepper]) -> None:
    """Free the stepper of a load that was cancelled."""
    if not load.cancelled() and load.exception() is None:
        load.result().close()
        models.release(load.result().vocabulary)
