"""The event loop's side of an engine whose batch runs on an `EngineThread`."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import replace
from typing import Any, Generic, TypeVar

from engines.base import (
    NEW_ANSWER,
    Adapter,
    AnswerDelta,
    AnswerPlan,
    EngineInfo,
    EngineStats,
    GenerationRequest,
    Health,
    Media,
    Pair,
    Prompt,
    Rendering,
    Scores,
    SourceFile,
    Structure,
    ToolUse,
)
from engines.batching.adapters import AdapterShelf, no_adapters
from engines.batching.chats import ChatPrompts
from engines.batching.sequence import Sequence
from engines.batching.thread import EngineThread
from engines.batching.vocabulary import ModelVocabulary
from engines.errors import EngineError, UnsupportedFeature
from engines.limits import (
    check_choice,
    generation_limit,
    no_chat_template,
    no_structures,
)
from engines.media import check_kinds
from engines.stream import ChunkStream, ended, resume, retell
from engines.text.answer_grammar.plans import AnswerPlans
from engines.text.answers.choice import choose_format
from engines.text.answers.output import Output, output_of
from engines.text.grammar import Compiler, GrammarVocabulary, TokenMask
from engines.text.ranking.judge import judge_of
from engines.text.templates.renderer import TemplateWorker
from engines.text.tokens.tokenizer import Tokenizer

logger = logging.getLogger("engines.batching")

S = TypeVar("S", bound=Sequence)


class BatchingEngine(ABC, Generic[S]):
    """The engine contract over an `EngineThread`, except for ``sleep`` and ``wake``.

    An engine adds those and the methods at the end.
    """

    def __init__(
        self,
        thread: EngineThread[S],
        info: EngineInfo,
        vocabulary: ModelVocabulary,
        templates: TemplateWorker,
        *,
        stall_timeout: float,
        allow_special_tokens: bool = False,
        answer_format: str | None = None,
        response_template: Mapping[str, Any] | None = None,
        grammar_vocabulary: GrammarVocabulary | None = None,
        rerank_template: str | None = None,
        adapters: AdapterShelf[Any] | None = None,
    ) -> None:
        """``thread`` was started. An engine with work that takes no step for ``stall_timeout`` seconds counts
        as hung. ``allow_special_tokens``: see `Tokenizer`. ``answer_format`` and ``response_template``: see
        `choose_format`. ``grammar_vocabulary`` is that of an engine with the capability "structured",
        ``adapters`` are those of one with "adapters". ``rerank_template`` replaces the model's own."""
        self._thread = thread
        self._vocabulary = vocabulary
        self._tokenizer = Tokenizer(
            vocabulary, info.context_length, allow_special_tokens=allow_special_tokens
        )
        self._compiler = None if grammar_vocabulary is None else Compiler(grammar_vocabulary)
        self._templates = templates
        self._stall_timeout = stall_timeout
        source = vocabulary.chat_template
        self._format = choose_format(source, answer_format, response_template) if source else None
        self._plans = AnswerPlans(self._format, vocabulary) if self._format is not None else None
        self._chats = (
            None
            if not source
            else ChatPrompts(
                source,
                vocabulary,
                self._tokenizer,
                templates,
                self._format,
                lacks_special=self._lacks_special,
                media_ids=self._media_ids,
            )
        )
        self._info = self._described(info)
        pairs = rerank_template or vocabulary.rerank_template
        self._judge = judge_of(pairs, vocabulary, self._tokenizer, templates, self._lacks_special)
        self._adapters = no_adapters() if adapters is None else adapters
        self._closed = False

    async def render_chat(
        self,
        messages: Seq[Mapping[str, Any]],
        *,
        tools: Seq[Mapping[str, Any]] | None = None,
        rendering: Rendering = NEW_ANSWER,
        media: Seq[Media] = (),
    ) -> Prompt:
        if self._closed:
            raise EngineError("the engine is closed")
        if self._chats is None:
            raise no_chat_template(self._info.model)
        check_kinds(media, self._info)
        return await self._chats.prompt(messages, tools, rendering, media)

    async def render_infill(self, prefix: str | Seq[int], suffix: str, files: Seq[SourceFile] = ()) -> Prompt:
        return await self._tokenizer.infill(self._vocabulary.fim, prefix, suffix, files)

    def answer_plan(
        self, tools: ToolUse | None, prompt: Prompt, structure: Structure | None
    ) -> AnswerPlan | None:
        if self._plans is None:
            raise no_chat_template(self._info.model)
        return self._plans.plan(tools, prompt, structure)

    def can_resume(self, structure: Structure | None, plan: AnswerPlan | None) -> bool:
        return structure is None or self._compiler is not None

    async def tokenize(self, text: str, *, add_special: bool = True) -> tuple[int, ...]:
        return await self._tokenizer.tokenize(text, add_special=add_special)

    async def detokenize(self, token_ids: Seq[int]) -> str:
        return await self._tokenizer.detokenize(token_ids)

    def labels(self, token_ids: Seq[int]) -> list[bytes]:
        # What stands for media has no text.
        return [self._vocabulary.label(token) if token >= 0 else b"" for token in token_ids]

    async def prepare(self, structure: Structure) -> None:
        if self._compiler is None:
            raise no_structures()
        await self._compiler.compile(structure)

    def generate(self, request: GenerationRequest) -> ChunkStream:
        thread, vocabulary = self._thread, self._vocabulary
        if self._closed or not thread.is_alive:
            raise thread.failure or EngineError("the engine is closed")
        self._adapters.of(request)
        if request.structure is not None and self._compiler is None:
            raise no_structures()
        limit = generation_limit(
            request, context_length=self._info.context_length, n_vocab=vocabulary.n_vocab
        )
        check_choice(request, vocabulary.is_end)
        output = output_of(request, vocabulary)
        last = resume(request, output, limit=limit, is_end=vocabulary.is_end)
        if last is not None:
            return ended(last)
        stream = ChunkStream(on_close=lambda: self._abort(thread, sequence))
        sequence = self._new_sequence(request, stream, output, limit)
        sequence.mask = self._mask(request)
        self._submit(thread, sequence)
        return stream

    async def add_adapter(self, adapter: Adapter) -> None:
        """Load a LoRA adapter (`engines.base.Adapts`)."""
        before = self._adapters.nbytes
        await self._adapters.add(adapter)
        self._note_memory(self._adapters.nbytes - before)

    async def remove_adapter(self, name: str) -> None:
        """Let go of a LoRA adapter, once no request uses it (`engines.base.Adapts`)."""
        before = self._adapters.nbytes
        await self._adapters.remove(name, self._thread)
        self._note_memory(self._adapters.nbytes - before)

    def _note_memory(self, more: int) -> None:
        self._info = replace(self._info, memory=self._info.memory + more)

    def retell(self, request: GenerationRequest) -> Seq[AnswerDelta]:
        return retell(request, self._vocabulary)

    def _mask(self, request: GenerationRequest) -> TokenMask | None:
        """What keeps an answer in its form, of which its reasoning is no part."""
        if request.structure is None or self._compiler is None:
            return None
        if not request.generated:
            return self._compiler.grammar(request.structure).mask()
        output, formed = output_of(request, self._vocabulary), []
        for token in request.generated:
            if not output.in_reasoning:
                formed.append(token)
            output.push(token)
        return self._compiler.grammar(request.structure).mask(formed)

    async def score(self, pairs: Seq[Pair], *, most: int | None = None, request_id: str = "") -> Scores:
        """Of a reranker that generates (`engines.base.Embeds`)."""
        if self._judge is None:
            raise UnsupportedFeature(f"model {self._info.model} ranks no documents", param="model")
        return await self._judge.score(self, pairs, most=most, request_id=request_id)

    def _described(self, info: EngineInfo) -> EngineInfo:
        """``info`` with what the chat template is the reason for."""
        if self._format is None:
            return info
        reasons = {"reasoning"} if self._format.reasonings else set()
        details = {**info.details, "answer_format": self._format.name}
        return replace(info, capabilities=info.capabilities | {"tools"} | reasons, details=details)

    @property
    def info(self) -> EngineInfo:
        return self._info

    async def health(self) -> Health:
        return Health(False, "closed") if self._closed else self._thread.health(self._stall_timeout)

    def stats(self) -> EngineStats:
        return self._thread.stats

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._thread.stop(EngineError("the model is being unloaded"))
        await self._tokenizer.close()
        if self._compiler is not None:
            await self._compiler.close()
        await self._release_templates()
        if await self._thread_ended():
            self._release_model()
        else:
            # Freeing weights under a thread that still computes would crash the process.
            logger.error("the engine thread of %s hangs; its memory is not freed", self._info.model)

    async def _thread_ended(self) -> bool:
        """Wait until the engine thread, which was told to stop, is done; False if it hangs."""
        return await asyncio.to_thread(self._thread.join, self._stall_timeout)

    def _submit(self, thread: EngineThread[S], sequence: S) -> None:
        """Let ``thread`` have a sequence; an engine may have to prepare it first."""
        thread.submit(sequence)

    def _abort(self, thread: EngineThread[S], sequence: S) -> None:
        """Take back a sequence that nobody waits for any more."""
        thread.abort(sequence)

    async def _media_ids(self, media: Media) -> tuple[int, ...]:
        """The ids that stand for ``media`` in a prompt, of an engine with the capability for it."""
        raise UnsupportedFeature("this model's engine takes no images or sounds", param="messages")

    # -- what an engine adds -----------------------------------------------------------------------

    @abstractmethod
    def _new_sequence(self, request: GenerationRequest, stream: ChunkStream, output: Output, limit: int) -> S:
        """The sequence of a request that was checked."""

    @abstractmethod
    def _lacks_special(self, text: str) -> bool:
        """Whether a rendered chat still needs the special tokens that `tokenize` adds."""

    @abstractmethod
    async def _release_templates(self) -> None:
        """End the process that renders chat templates, unless another engine shares it."""

    @abstractmethod
    def _release_model(self) -> None:
        """Give up what the engine thread did not free."""
