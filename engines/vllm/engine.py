"""vLLM behind the engine contract. Everything here runs on the event loop's thread.

This module does not import vLLM: that takes seconds, and happens in the thread that loads.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from engines.base import (
    NEW_ANSWER,
    Adapter,
    AnswerDelta,
    AnswerPlan,
    GenerationRequest,
    Media,
    Pair,
    Prompt,
    Rendering,
    Scores,
    SourceFile,
    Structure,
    TokenStream,
    ToolUse,
)
from engines.errors import EngineError, UnsupportedFeature
from engines.limits import check_choice, generation_limit, no_chat_template, refuse_tools
from engines.load_spec import LoadSpec
from engines.media import check_kinds, decoded_all
from engines.stream import ended, resume, retell
from engines.text.answers.output import output_of
from engines.text.grammar import Compiler
from engines.text.ranking.judge import judge_of
from engines.text.templates.chat_prompt import OpenEnd, variables
from engines.text.templates.content_parts import with_marks
from engines.text.templates.media_marks import MediaMarks
from engines.text.templates.renderer import TemplateWorker
from engines.text.tokens.tokenizer import Tokenizer
from engines.vllm.assembly import Assembled, assemble
from engines.vllm.media import engine_input, with_pictures
from engines.vllm.resident import STALL_SECONDS, VllmResident, start
from engines.vllm.sampling import is_request_fault, may_be_invalid, request_error, sampling_params
from engines.vllm.stream import DIED, VllmStream
from engines.vllm.wholeness import Wholeness


class VllmEngine(VllmResident):
    """A model that generates text. Make it with `load`."""

    def __init__(
        self,
        parts: Assembled,
        *,
        stall_timeout: float = STALL_SECONDS,
        allow_special_tokens: bool = False,
        rerank_template: str | None = None,
    ) -> None:
        """``allow_special_tokens``: see `Tokenizer`. ``rerank_template`` replaces the model's own."""
        super().__init__(parts.launched, parts.info, stall_timeout)
        self._tokenizer = Tokenizer(
            parts.vocabulary, parts.info.context_length, allow_special_tokens=allow_special_tokens
        )
        grammar = parts.grammar_vocabulary
        self._compiler = None if grammar is None else Compiler(grammar)
        self._templates = TemplateWorker()  # of pairs; vLLM renders chats
        pairs = rerank_template or parts.vocabulary.rerank_template
        self._judge = judge_of(pairs, parts.vocabulary, self._tokenizer, self._templates, lambda text: False)
        self._parts: Assembled | None = parts
        self._numbers = itertools.count()
        self._streams: set[VllmStream] = set()
        self._stream_ended = asyncio.Event()
        self._starting: set[asyncio.Task[Any]] = set()
        self._aborting: set[asyncio.Task[None]] = set()

    @classmethod
    async def load(cls, spec: LoadSpec, progress: Callable[[float], None] | None = None) -> VllmEngine:
        """As `engines.vllm.resident.start`."""
        parts = await start(spec, progress, assemble)
        return cls(
            parts,
            stall_timeout=spec.stall_timeout,
            allow_special_tokens=spec.allow_special_tokens,
            rerank_template=spec.rerank_template,
        )

    async def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        rendering: Rendering = NEW_ANSWER,
        media: Sequence[Media] = (),
    ) -> Prompt:
        parts = self._open()
        self._check_tools(tools)
        if "chat" not in self.info.capabilities:
            raise no_chat_template(self.info.model)
        check_kinds(media, self.info)
        marks, pictures = MediaMarks(len(media)), await decoded_all(media)
        messages, tools = await parts.tools.adapt(with_marks(messages, marks.marks), tools)
        chat = await self._tokenizer.guard(messages, tools, rendering.template_args)
        switches = rendering.reasoning_effort is not None or rendering.reasons is not None
        source = parts.renderer.source(chat.tools) if switches else None
        given = variables(rendering, chat.template_args, source)
        end = OpenEnd.of(rendering)
        shown = chat.messages if end is None else end.mark(chat.messages)
        shown = with_pictures(shown, marks, media, pictures) if media else shown
        rendered = await parts.renderer.render(shown, chat.tools, rendering, given)
        if isinstance(rendered.prompt, str):
            text = rendered.prompt if end is None else end.cut(rendered.prompt)
            # The template writes the special tokens that the model wants.
            prompt = await self._tokenizer.prompt(text, chat, add_special=False)
        else:
            prompt = Prompt(rendered.prompt)
        return await parts.renderer.expanded(replace(prompt, variables=given), rendered, media)

    async def render_infill(
        self, prefix: str | Sequence[int], suffix: str, files: Sequence[SourceFile] = ()
    ) -> Prompt:
        return await self._tokenizer.infill(self._open().vocabulary.fim, prefix, suffix, files)

    def answer_plan(
        self, tools: ToolUse | None, prompt: Prompt, structure: Structure | None
    ) -> AnswerPlan | None:
        parts = self._open()
        self._check_tools(tools.definitions if tools is not None else None)
        if parts.plans is None:
            raise no_chat_template(self.info.model)
        return parts.plans.plan(tools, prompt, structure)

    def can_resume(self, structure: Structure | None, plan: AnswerPlan | None) -> bool:
        return structure is None and plan is None

    async def tokenize(self, text: str, *, add_special: bool = True) -> tuple[int, ...]:
        return await self._tokenizer.tokenize(text, add_special=add_special)

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        return await self._tokenizer.detokenize(token_ids)

    def labels(self, token_ids: Sequence[int]) -> list[bytes]:
        return [*map(self._open().vocabulary.label, token_ids)]

    def retell(self, request: GenerationRequest) -> Sequence[AnswerDelta]:
        return retell(request, self._open().vocabulary)

    async def prepare(self, structure: Structure) -> None:
        """Where vLLM has another library for grammars, `generate` has it check the structure."""
        self._open()
        if self._compiler is not None:
            await self._compiler.compile(structure)

    def generate(self, request: GenerationRequest) -> TokenStream:
        parts = self._open()
        if self._llm.errored:
            raise EngineError(DIED)
        adapter, vocabulary = parts.adapters.of(request.adapter), parts.vocabulary
        limit = generation_limit(request, context_length=self.info.context_length, n_vocab=vocabulary.n_vocab)
        check_choice(request, vocabulary.is_end)
        output = output_of(request, vocabulary)
        last = resume(request, output, limit=limit, is_end=vocabulary.is_end)
        if last is not None:
            return ended(last)
        params = sampling_params(request, limit, uses_llguidance=self._compiler is not None)
        name = f"{request.request_id}-{next(self._numbers)}"
        arguments: dict[str, Any] = {
            "request_id": name,
            "prompt": engine_input(request.prompt, request.generated),
            "params": params,
            "lora_request": adapter,
        }
        if may_be_invalid(request):
            self._validate(arguments)
        starting = asyncio.get_running_loop().create_task(self._llm.add_request(**arguments))
        self._starting.add(starting)
        starting.add_done_callback(self._starting.discard)
        self._last_submit = time.monotonic()
        stream = VllmStream(
            request,
            vocabulary,
            output,
            starting,
            lambda it, abort: self._end(it, starting, name, abort),
            self._wholeness(request.structure),
        )
        self._streams.add(stream)
        return stream

    async def score(self, pairs: Sequence[Pair], *, most: int | None = None, request_id: str = "") -> Scores:
        """Of a reranker that generates (`engines.base.Embeds`)."""
        self._open()
        if self._judge is None:
            raise UnsupportedFeature(f"model {self._info.model} ranks no documents", param="model")
        return await self._judge.score(self, pairs, most=most, request_id=request_id)

    async def add_adapter(self, adapter: Adapter) -> None:
        """As `engines.base.Adapts`."""
        await self._open().adapters.add(adapter, self._llm)

    async def remove_adapter(self, name: str) -> None:
        """As `engines.base.Adapts`."""
        request = self._open().adapters.take_out(name)
        while any(stream.adapter == name for stream in self._streams):
            self._stream_ended.clear()
            await self._stream_ended.wait()
        if request is not None and not self._closed:
            await self._llm.remove_lora(request.lora_int_id)

    async def _end_requests(self, reason: EngineError) -> None:
        for stream in tuple(self._streams):
            stream.fail(reason)
        await self._tokenizer.close()
        await self._templates.close()
        if self._compiler is not None:
            await self._compiler.close()
        await asyncio.gather(*self._starting, *self._aborting, return_exceptions=True)
        self._parts = None

    def _wholeness(self, structure: Structure | None) -> Wholeness | None:
        """None where nothing is demanded of an answer, or not of all of its tokens."""
        parts = self._open()
        if structure is None or self._compiler is None or not parts.binds_reasoning:
            return None
        return Wholeness(partial(self._compiler.check_whole, structure), parts.vocabulary.is_end)

    def _validate(self, arguments: Mapping[str, Any]) -> None:
        """Raise `RequestError` for what vLLM would refuse once the request is on its way."""
        try:
            self._llm.input_processor.process_inputs(**arguments, supported_tasks=("generate",))
        except Exception as error:
            if not is_request_fault(error):
                raise
            raise request_error(error) from error

    def _end(self, stream: VllmStream, start: asyncio.Task[Any], name: str, abort: bool) -> None:
        self._streams.discard(stream)
        self._stream_ended.set()
        if not abort:
            return
        if not start.done():
            start.add_done_callback(lambda _: self._abort(name))
        else:
            self._abort(name)

    def _abort(self, name: str) -> None:
        if self._closed or self._llm.errored:  # then everything ends anyway
            return
        task = asyncio.get_running_loop().create_task(self._llm.abort(name))
        self._aborting.add(task)
        task.add_done_callback(self._aborting.discard)

    def _check_tools(self, tools: Sequence[Mapping[str, Any]] | None) -> None:
        if "tools" not in self.info.capabilities:
            refuse_tools(tools)

    def _open(self) -> Assembled:
        """The parts of an engine that is not closed; raises `EngineError` otherwise."""
        self._check_open()
        assert self._parts is not None
        return self._parts
