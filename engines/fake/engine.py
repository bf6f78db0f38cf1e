"""A deterministic engine without a model: for tests, for measuring the HTTP edge, for trying the API.

It answers with its prompt; a token is an ASCII word or a byte. It keeps the whole engine contract, so
that what passes here means something.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from engines.base import (
    NEW_ANSWER,
    AnswerDelta,
    AnswerPlan,
    AnswerReader,
    Chunk,
    EngineInfo,
    EngineStats,
    FinishReason,
    GenerationRequest,
    Health,
    Media,
    Prompt,
    Rendering,
    SourceFile,
    Structure,
    ToolUse,
)
from engines.errors import EngineError, UnsupportedFeature
from engines.fake.abilities import CAPABILITIES
from engines.fake.choice import source_of
from engines.fake.ending import last_chunk
from engines.fake.pooling import LENGTH, FakeEmbeds
from engines.fake.scoring import prompt_logprobs, token_logprob
from engines.fake.template import render
from engines.fake.vocabulary import WordVocabulary
from engines.limits import (
    check_choice,
    generation_limit,
    no_structures,
    refuse_extras,
    refuse_tools,
)
from engines.media import check_kinds
from engines.stream import ChunkStream, resume, retell
from engines.text.answers.assembler import Released
from engines.text.answers.forced_calls import forced_plan
from engines.text.answers.output import output_of
from engines.text.answers.plan import Plan
from engines.text.templates.chat_prompt import variables
from engines.text.tokens.tokenizer import Tokenizer

_FOREVER = 2**62


class FakeEngine(FakeEmbeds):
    """Says its prompt once (``ignore_eos``: over and over), or the rest of it if part was generated before.

    ``token_delay`` seconds pass between tokens (0: as fast as the loop turns). ``answer`` replaces the
    echo. ``healthy`` and ``fail_next`` let tests make it misbehave.

    With "tools", "reasoning", "structured", "adapters", "vision" or "audio" in ``capabilities`` it accepts
    what asks for them: ``make_reader`` tells its answers' parts apart, ``answer`` is what fits a structure,
    and ``last_request`` and ``last_rendering`` are what it was asked.
    """

    def __init__(
        self,
        name: str = "fake",
        *,
        token_delay: float = 0.0,
        answer: str | None = None,
        context_length: int = 8192,
        longest_context: int = 8192,
        max_sequences: int = 64,
        capabilities: Iterable[str] = CAPABILITIES,
        matryoshka: bool = False,
        dimensions: tuple[int, ...] = (),
        make_reader: Callable[[], AnswerReader] | None = None,
    ) -> None:
        self._info = EngineInfo(
            engine="fake",
            model=name,
            context_length=context_length,
            longest_context=longest_context,
            max_sequences=max_sequences,
            devices=("cpu",),
            capabilities=frozenset(capabilities),
            pooling="mean",
            embedding_length=LENGTH,
            matryoshka=matryoshka,
            dimensions=dimensions,
        )
        self.healthy = True
        self.fail_next: EngineError | None = None
        self.answer = answer
        self.last_request: GenerationRequest | None = None
        self.last_rendering: Rendering | None = None
        self._delay = token_delay
        self._make_reader = make_reader
        self._vocabulary = WordVocabulary()
        self._tokenizer = Tokenizer(self._vocabulary, context_length)
        self._slots = asyncio.Semaphore(max_sequences)
        self._tasks: dict[asyncio.Task[None], ChunkStream] = {}
        self._running = 0
        self._kv_used = 0
        self._prompt_tokens = self._completion_tokens = 0
        self._closed = False

    @property
    def info(self) -> EngineInfo:
        return self._info

    async def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        rendering: Rendering = NEW_ANSWER,
        media: Sequence[Media] = (),
    ) -> Prompt:
        self._check_tools(tools)
        check_kinds(media, self._info)
        chat = await self._tokenizer.guard(messages, tools, rendering.template_args)
        variables(rendering, chat.template_args, source=None)
        self.last_rendering = rendering
        text = render(chat.messages, media)
        text = text[:-1] if rendering.continue_final else text
        return replace(await self._tokenizer.prompt(text, chat, add_special=True), media=tuple(media))

    async def render_infill(
        self, prefix: str | Sequence[int], suffix: str, files: Sequence[SourceFile] = ()
    ) -> Prompt:
        fim = self._vocabulary.fim if "fim" in self._info.capabilities else None
        return await self._tokenizer.infill(fim, prefix, suffix, files)

    def answer_plan(
        self, tools: ToolUse | None, prompt: Prompt, structure: Structure | None
    ) -> AnswerPlan | None:
        self._check_tools(tools.definitions if tools is not None else None)
        make = self._make_reader
        if tools is not None and tools.is_forced:
            reasons = "reasoning" in self._info.capabilities
            return forced_plan(tools, lambda: make() if make is not None and reasons else None)
        return Plan(make, tools, structure) if make is not None else None

    def can_resume(self, structure: Structure | None, plan: AnswerPlan | None) -> bool:
        return structure is None

    async def tokenize(
        self, text: str, *, add_special: bool = True, most: int | None = None
    ) -> tuple[int, ...]:
        return await self._tokenizer.tokenize(text, add_special=add_special, most=most)

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        return await self._tokenizer.detokenize(token_ids)

    def labels(self, token_ids: Sequence[int]) -> list[bytes]:
        return [*map(self._vocabulary.label, token_ids)]

    async def prepare(self, structure: Structure) -> None:
        if "structured" not in self._info.capabilities:
            raise no_structures()

    def generate(self, request: GenerationRequest) -> ChunkStream:
        if self._closed:
            raise EngineError("the engine is closed")
        self._check_extras(request)
        self.last_request = request
        limit = generation_limit(
            request, context_length=self._info.context_length, n_vocab=WordVocabulary.n_vocab
        )
        check_choice(request, _never)
        self._vocabulary.check(request.prompt.token_ids)
        said = self._vocabulary.tokenize(self.answer) if self.answer else request.prompt.token_ids
        source = source_of(said, request.sampling, self._vocabulary)
        self._vocabulary.check(request.generated, param="continuation")
        stream = ChunkStream(on_close=lambda: _cancel(task))
        task = asyncio.get_running_loop().create_task(self._run(request, stream, source, limit))
        self._tasks[task] = stream
        task.add_done_callback(self._tasks.pop)
        return stream

    def retell(self, request: GenerationRequest) -> Sequence[AnswerDelta]:
        return retell(request, self._vocabulary)

    async def health(self) -> Health:
        if self._closed:
            return Health(False, "closed")
        return Health(self.healthy, "" if self.healthy else "told to be unhealthy")

    def stats(self) -> EngineStats:
        return EngineStats(
            running=self._running,
            waiting=len(self._tasks) - self._running,
            kv_used=self._kv_used,
            kv_total=self._info.context_length * self._info.max_sequences,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
        )

    async def sleep(self) -> None:
        raise UnsupportedFeature("the fake engine cannot sleep")

    async def wake(self) -> None:
        raise UnsupportedFeature("the fake engine cannot sleep")

    async def close(self) -> None:
        self._closed = True
        tasks = dict(self._tasks)
        for task, stream in tasks.items():
            stream.fail(EngineError("the model is being unloaded"))
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._tokenizer.close()

    async def _run(
        self, request: GenerationRequest, stream: ChunkStream, source: tuple[int, ...], limit: int
    ) -> None:
        async with self._slots:
            held = len(request.prompt.token_ids)
            self._running += 1
            self._kv_used += held
            try:
                await self._emit(request, stream, source, limit)
            except EngineError as error:
                stream.fail(error)
            finally:
                self._running -= 1
                self._kv_used -= held

    async def _emit(
        self, request: GenerationRequest, stream: ChunkStream, source: tuple[int, ...], limit: int
    ) -> None:
        output = output_of(request, self._vocabulary)
        scores = tuple(prompt_logprobs(request, self._vocabulary))
        last = resume(request, output, limit=limit, is_end=_never)
        if last is not None:
            stream.put(last)
            return
        self._prompt_tokens += len(request.prompt.token_ids)
        longest = _FOREVER if request.ignore_eos else max(request.min_tokens, len(source))
        end = max(min(limit, longest), len(request.generated))
        if scores:
            stream.put(Chunk(prompt_logprobs=scores))
        for count in range(len(request.generated), end):
            await asyncio.sleep(self._delay)
            self._fail_if_told()
            token = source[count % len(source)]
            self._completion_tokens += 1
            logprob = token_logprob(token, request.logprobs, self._vocabulary)
            if token in request.stop_token_ids and count >= request.min_tokens:
                released = output.push(token) if request.include_stop else Released()
                released = released.then(output.finish()).with_end(request, logprob)
                stream.put(last_chunk(released, output, (), "stop", request, count + 1))
                return
            released = output.push(token, logprob)
            if released.stopped:
                stream.put(last_chunk(released, output, (token,), "stop", request, count + 1))
                return
            stream.put(released.chunk((token,)))
        reason: FinishReason = "length" if limit <= longest else "stop"
        stream.put(last_chunk(output.finish(), output, (), reason, request, end))

    def _check_tools(self, tools: Sequence[Mapping[str, Any]] | None) -> None:
        if "tools" not in self._info.capabilities:
            refuse_tools(tools)

    def _check_extras(self, request: GenerationRequest) -> None:
        if "structured" in self._info.capabilities:
            request = replace(request, structure=None)
        if "adapters" in self._info.capabilities:
            request = replace(request, adapter=None)
        refuse_extras(request)

    def _fail_if_told(self) -> None:
        if self.fail_next is not None:
            error, self.fail_next = self.fail_next, None
            raise error


def _never(token: int) -> bool:
    """No token ends an answer: it ends where its text does."""
    return False


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
