"""The MLX engine as the rest of the house sees it. Everything here runs on the event loop's thread."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import time
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING, Any

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
from engines.mlx.folder import check_folder, check_settings
from engines.mlx.sequence import Sequence
from engines.mlx.vocabulary import Vocabulary
from engines.mlx.worker import Batch, Report, Worker
from engines.stream import ChunkStream, ended, resume
from engines.text.output import TextAssembler
from engines.text.renderer import ChatTemplate, TemplateWorker

if TYPE_CHECKING:
    from engines.load_spec import LoadSpec

if importlib.util.find_spec("mlx_lm") is None:
    raise ImportError("No module named 'mlx_lm'")

logger = logging.getLogger("engines.mlx")

# Tokenising more text than this would hold up the loop.
INLINE_TEXT = 4096
# An engine with work that takes no step for so long counts as hung, in seconds.
STALL_SECONDS = 60.0


class MlxEngine:
    """One model with its own thread. Make it with `load`."""

    def __init__(
        self,
        worker: Worker,
        info: EngineInfo,
        vocabulary: Vocabulary,
        *,
        stall_timeout: float = STALL_SECONDS,
    ) -> None:
        self._worker = worker
        self._info = info
        self._vocabulary = vocabulary
        self._stall_timeout = stall_timeout
        self._templates = TemplateWorker()
        source, bos, eos = vocabulary.chat_template, vocabulary.bos_text, vocabulary.eos_text
        self._template = (
            ChatTemplate(source, bos_token=bos, eos_token=eos, worker=self._templates) if source else None
        )
        self._closed = False

    @classmethod
    async def load(cls, spec: LoadSpec, progress: Callable[[float], None] | None = None) -> MlxEngine:
        """Load a model on a thread of its own; cancelling gives the load up.

        Raises `ModelLoadError`. ``progress`` gets 0..1, from the loading thread.
        """
        worker = Worker(lambda check: _open(spec, check, progress), asyncio.get_running_loop())
        worker.start()
        try:
            info, vocabulary = await worker.loaded
        except asyncio.CancelledError:
            worker.stop(EngineError("the load was given up"))
            raise
        return cls(worker, info, vocabulary, stall_timeout=spec.stall_timeout)

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
        if self._template is None:
            raise no_chat_template(self._info.model)
        text = await self._template.render(
            messages, add_generation_prompt=add_generation_prompt, template_args=template_args
        )
        # Hugging Face's templates write every special token themselves.
        return Prompt(await self.tokenize(text, add_special=False), text)

    def answer_parser(
        self, tools: Seq[Mapping[str, Any]] | None = None, prompt: Prompt | None = None
    ) -> None:
        refuse_tools(tools)

    async def tokenize(self, text: str, *, add_special: bool = True) -> tuple[int, ...]:
        if len(text) <= INLINE_TEXT:
            return self._vocabulary.tokenize(text, add_special=add_special)
        return await asyncio.to_thread(self._vocabulary.tokenize, text, add_special=add_special)

    async def detokenize(self, token_ids: Seq[int]) -> str:
        check_token_ids(token_ids, self._vocabulary.n_vocab)
        return self._vocabulary.detokenize(token_ids)

    async def prepare(self, structure: Structure) -> None:
        raise no_structures()

    def generate(self, request: GenerationRequest) -> ChunkStream:
        if self._closed or not self._worker.is_alive:
            raise self._worker.failure or EngineError("the engine is closed")
        refuse_extras(request)
        vocabulary = self._vocabulary
        limit = generation_limit(
            request, context_length=self._info.context_length, n_vocab=vocabulary.n_vocab
        )
        assembler = TextAssembler(request.stop, request.logprobs is not None)
        last = resume(request, assembler, limit=limit, piece=vocabulary.piece, is_end=vocabulary.is_end)
        if last is not None:
            return ended(last)
        stream = ChunkStream(on_close=lambda: self._worker.abort(sequence))
        sequence = Sequence(request, stream, assembler, limit)
        self._worker.submit(sequence)
        return stream

    async def health(self) -> Health:
        worker = self._worker
        if self._closed:
            return Health(False, "closed")
        if not worker.is_alive:
            return Health(False, str(worker.failure or "the engine thread ended"))
        stalled = time.monotonic() - worker.last_progress
        if worker.is_busy and stalled > self._stall_timeout:
            return Health(False, f"no step for {stalled:.0f} s with work waiting")
        return Health(True)

    def stats(self) -> EngineStats:
        return self._worker.stats

    async def sleep(self) -> None:
        raise UnsupportedFeature("MLX cannot sleep: unload the model instead")

    async def wake(self) -> None:
        raise UnsupportedFeature("MLX cannot sleep: unload the model instead")

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._worker.stop(EngineError("the model is being unloaded"))
        await self._templates.close()
        if not await asyncio.to_thread(self._worker.join, self._stall_timeout):
            logger.error("the engine thread of %s hangs; its memory is not freed", self._info.model)


def _open(spec: LoadSpec, check: Report, progress: Callable[[float], None] | None) -> Batch:
    """Runs on the engine thread. Importing mlx-lm takes seconds, which the loop must not wait for."""
    check_settings(spec)
    check_folder(spec.path)

    def report(fraction: float) -> None:
        check(fraction)
        if progress is not None:
            progress(fraction)

    report(0.0)
    try:
        from engines.mlx.runtime import open_runtime
    except ImportError as error:
        raise ModelLoadError(
            f"MLX cannot be imported ({error}): `pip install 'enginehouse[mlx]'` installs it"
        ) from error
    return open_runtime(spec, report)
