"""vLLM behind the engine contract. Everything here runs on the event loop's thread.

This module does not import vLLM: that takes seconds, and happens in the thread that loads.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from engines.base import (
    NEW_ANSWER,
    AnswerPlan,
    EngineInfo,
    EngineStats,
    GenerationRequest,
    Health,
    Prompt,
    Rendering,
    Structure,
    TokenStream,
    ToolUse,
)
from engines.errors import EngineError, UnsupportedFeature
from engines.limits import check_choice, generation_limit, no_chat_template, refuse_tools
from engines.load_spec import LoadSpec
from engines.machine.dedicated_thread import in_own_thread
from engines.stream import ended, resume
from engines.text.chat_prompt import variables
from engines.text.output import output_of
from engines.text.tokenizer import Tokenizer
from engines.vllm.assembly import Assembled, assemble
from engines.vllm.caches import forget_models
from engines.vllm.launch import Launch
from engines.vllm.sampling import is_request_fault, may_be_invalid, request_error, sampling_params
from engines.vllm.stream import DIED, VllmStream

logger = logging.getLogger("engines.vllm")

STALL_SECONDS = 60.0


class VllmEngine:
    """One model in one EngineCore process. Make it with `load`."""

    def __init__(
        self, parts: Assembled, *, stall_timeout: float = STALL_SECONDS, allow_special_tokens: bool = False
    ) -> None:
        """``allow_special_tokens``: see `Tokenizer`."""
        self._info = parts.info
        self._tokenizer = Tokenizer(
            parts.vocabulary, parts.info.context_length, allow_special_tokens=allow_special_tokens
        )
        self._parts: Assembled | None = parts
        self._llm: Any = parts.launched.llm
        self._counters = parts.launched.counters
        self._stall_timeout = stall_timeout
        self._numbers = itertools.count()
        self._streams: set[VllmStream] = set()
        self._starting: set[asyncio.Task[Any]] = set()
        self._aborting: set[asyncio.Task[None]] = set()
        self._last_submit = time.monotonic()
        self._closed = False

    @classmethod
    async def load(cls, spec: LoadSpec, progress: Callable[[float], None] | None = None) -> VllmEngine:
        """Start vLLM off the loop; cancelling ends its process. One load at a time in a process.

        Raises `ModelLoadError`. ``progress`` gets 0..1, from other threads.
        """
        report = progress or (lambda fraction: None)
        launch = Launch(spec, report)
        # Not the future's result: that would keep the parts alive for as long as something keeps it.
        made: list[Assembled] = []
        running = in_own_thread(lambda: made.append(assemble(spec, launch.run())), "vllm-load")
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            launch.give_up()
            running.add_done_callback(lambda _: _discard(running, made))
            raise
        parts = made.pop()
        # Starts what listens to the child, and keeps the answer for the requests to come.
        await parts.launched.llm.get_supported_tasks()
        report(1.0)
        return cls(parts, stall_timeout=spec.stall_timeout, allow_special_tokens=spec.allow_special_tokens)

    @property
    def info(self) -> EngineInfo:
        return self._info

    async def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        rendering: Rendering = NEW_ANSWER,
    ) -> Prompt:
        parts = self._open()
        self._check_tools(tools)
        if "chat" not in self.info.capabilities:
            raise no_chat_template(self.info.model)
        history = await parts.history.adapt(messages)
        chat = await self._tokenizer.guard(history, tools, rendering.template_args)
        source = parts.renderer.source(chat.tools) if rendering.reasoning_effort is not None else None
        given = variables(rendering, chat.template_args, source)
        rendered = await parts.renderer.render(chat.messages, chat.tools, rendering, given)
        if not isinstance(rendered, str):
            return Prompt(rendered, variables=given)
        # The template writes the special tokens that the model wants.
        prompt = await self._tokenizer.prompt(rendered, chat, add_special=False)
        return replace(prompt, variables=given)

    def answer_plan(
        self, tools: ToolUse | None, prompt: Prompt, structure: Structure | None
    ) -> AnswerPlan | None:
        parts = self._open()
        self._check_tools(tools.definitions if tools is not None else None)
        if tools is not None and structure is not None and not tools.is_forced:
            raise UnsupportedFeature(
                "a structured answer together with tools that the model may call is not supported by vLLM's "
                "engine yet: leave one of them out, or force a call with tool_choice",
                param="response_format",
            )
        return parts.parsers.plan(tools, prompt, structure)

    def can_resume(self, structure: Structure | None, plan: AnswerPlan | None) -> bool:
        return structure is None and plan is None

    async def tokenize(self, text: str, *, add_special: bool = True) -> tuple[int, ...]:
        return await self._tokenizer.tokenize(text, add_special=add_special)

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        return await self._tokenizer.detokenize(token_ids)

    async def prepare(self, structure: Structure) -> None:
        """Nothing yet: `generate` has vLLM check the structure, and vLLM compiles it off the loop."""
        self._open()

    def generate(self, request: GenerationRequest) -> TokenStream:
        parts = self._open()
        if self._llm.errored:
            raise EngineError(DIED)
        adapter, vocabulary = _adapter(parts, request.adapter), parts.vocabulary
        limit = generation_limit(request, context_length=self.info.context_length, n_vocab=vocabulary.n_vocab)
        check_choice(request, vocabulary.is_end)
        output = output_of(request, vocabulary)
        last = resume(request, output, limit=limit, is_end=vocabulary.is_end)
        if last is not None:
            return ended(last)
        params = sampling_params(request, limit)
        name = f"{request.request_id}-{next(self._numbers)}"
        arguments: dict[str, Any] = {
            "request_id": name,
            "prompt": {
                "type": "token",
                "prompt_token_ids": [*request.prompt.token_ids, *request.generated],
            },
            "params": params,
            "lora_request": adapter,
        }
        if may_be_invalid(request):
            self._validate(arguments)
        start = asyncio.get_running_loop().create_task(self._llm.add_request(**arguments))
        self._starting.add(start)
        start.add_done_callback(self._starting.discard)
        self._last_submit = time.monotonic()
        stream = VllmStream(
            request, vocabulary, output, start, lambda it, abort: self._end(it, start, name, abort)
        )
        self._streams.add(stream)
        return stream

    async def health(self) -> Health:
        if self._closed:
            return Health(False, "closed")
        if self._llm.errored:
            return Health(False, DIED)
        stalled = time.monotonic() - max(self._counters.last_progress, self._last_submit)
        if self._live and stalled > self._stall_timeout:
            return Health(False, f"no step for {stalled:.0f} s with requests waiting")
        return Health(True)

    def stats(self) -> EngineStats:
        counters, live = self._counters, self._live
        running = min(live, counters.running)
        total = self._info.details["kv_tokens"]
        return EngineStats(
            running=running,
            waiting=live - running,
            kv_used=round(counters.kv_usage * total) if live else 0,
            kv_total=total,
            prompt_tokens=counters.prompt_tokens,
            completion_tokens=counters.completion_tokens,
            cached_tokens=counters.cached_tokens,
            preemptions=counters.preemptions,
            steps=counters.steps,
        )

    def metrics(self) -> Mapping[str, float]:
        """vLLM's own figures; the names are those of `Counters.as_metrics`."""
        return self._counters.as_metrics()

    async def sleep(self) -> None:
        self._check_sleep()
        await self._llm.sleep(level=1)

    async def wake(self) -> None:
        self._check_sleep()
        await self._llm.wake_up()

    async def close(self) -> None:
        if self._closed or self._parts is None:
            return
        self._closed = True
        for stream in tuple(self._streams):
            stream.fail(EngineError("the model is being unloaded"))
        await self._tokenizer.close()
        await asyncio.gather(*self._starting, *self._aborting, return_exceptions=True)
        launched = self._parts.launched
        self._llm = self._parts = None
        await launched.close()
        del launched
        await in_own_thread(forget_models, "vllm-forget")

    @property
    def _live(self) -> int:
        """Requests that vLLM has not ended; it learns of an abort at once."""
        if self._closed or self._llm.errored:
            return 0
        return int(self._llm.get_num_unfinished_requests())

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
        if self._closed or self._parts is None:
            raise EngineError("the engine is closed")
        return self._parts

    def _check_sleep(self) -> None:
        self._open()
        if "sleep" not in self.info.capabilities:
            raise UnsupportedFeature("vLLM cannot sleep on this device: unload the model instead")


def _adapter(parts: Assembled, name: str | None) -> Any:
    """vLLM's LoRA request for an adapter; None for the plain model."""
    if name is None:
        return None
    found = parts.adapters.get(name)
    if found is None:
        known = ", ".join(parts.adapters) or "none"
        raise UnsupportedFeature(f"the model has no adapter {name!r} (loaded: {known})", param="model")
    return found


def _discard(running: asyncio.Future[None], made: list[Assembled]) -> None:
    """Free what a load made after nobody wanted it any more."""
    if not running.cancelled():
        running.exception()  # looked at: asyncio need not report it
    while made:
        in_own_thread(made.pop().launched.end, "vllm-end")
