"""Streams of answers: token ids come from vLLM, text is made here.

vLLM's own detokeniser costs the API process more for a token, holds text back by the length of the
longest stop string, and tells no bytes; so tokens go through the same `Output` as everywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from engines.base import Candidate, Chunk, FinishReason, GenerationRequest, TokenLogprob, Usage
from engines.errors import EngineError, RequestError
from engines.text.answers.assembler import Released
from engines.text.answers.output import Output, finish_of
from engines.vllm.sampling import is_request_fault, request_error
from engines.vllm.vocabulary import VllmVocabulary
from engines.vllm.wholeness import Wholeness

DIED = "vLLM's engine process died"
_REASONS: dict[str, FinishReason] = {"length": "length", "stop": "stop", "repetition": "stop"}


class VllmStream:
    """Reads vLLM's collector of one request, which merges what a slow reader leaves behind."""

    __slots__ = (
        "_collector",
        "_completion_tokens",
        "_ended",
        "_error",
        "_on_end",
        "_output",
        "_request",
        "_scored",
        "_start",
        "_vocabulary",
        "_wholeness",
        "adapter",
    )

    def __init__(
        self,
        request: GenerationRequest,
        vocabulary: VllmVocabulary,
        output: Output,
        start: asyncio.Task[Any],
        on_end: Callable[[VllmStream, bool], None],
        wholeness: Wholeness | None = None,
    ) -> None:
        """``output`` has what was generated elsewhere. ``start`` gives the collector. ``on_end`` is
        called once; True means that vLLM must be told. ``wholeness`` is that of an answer with a structure.
        """
        self.adapter = request.adapter
        self._request = request
        self._vocabulary = vocabulary
        self._start = start
        self._on_end: Callable[[VllmStream, bool], None] | None = on_end
        self._collector: Any = None
        self._output = output
        self._wholeness = wholeness
        self._completion_tokens = len(request.generated)
        self._ended = False
        self._error: EngineError | None = None
        self._scored = request.prompt_logprobs is None  # or was told

    def __aiter__(self) -> VllmStream:
        return self

    async def __anext__(self) -> Chunk:
        if self._ended:
            self._raise_end()
        try:
            if self._collector is None:
                self._collector = await asyncio.shield(self._start)
            output = self._collector.get_nowait() or await self._collector.get()
        except Exception as error:
            if not self._ended:
                self._error = translate(error)
                self._end(abort=False)
            self._raise_end(error)
        if self._ended:
            self._raise_end()
        chunk = self._chunk(output)
        if self._wholeness is not None:
            self._wholeness.take(output.outputs[0].token_ids)
            if chunk.finish_reason in ("stop", "tool_calls") and not chunk.stop:
                await self._wholeness.check_end()
        return chunk

    def close(self) -> None:
        """Abort the sequence if it still runs and end the iteration. Synchronous, idempotent."""
        self._error = None
        self._end(abort=True)

    def fail(self, error: EngineError) -> None:
        """End the iteration with ``error``."""
        if not self._ended:
            self._error = error
            self._end(abort=True)
            if self._collector is not None:
                self._collector.put(error)  # wakes a reader

    def _raise_end(self, cause: BaseException | None = None) -> None:
        error, self._error = self._error, None
        if error is None:
            raise StopAsyncIteration
        raise error from cause

    def _end(self, *, abort: bool) -> None:
        self._ended = True
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(self, abort)

    def _chunk(self, output: Any) -> Chunk:
        if self._scored:
            return self._answer(output)
        self._scored = True
        scores = tuple(self._prompt_logprobs(output))
        if self._request.max_tokens == 0:
            self._end(abort=output.outputs[0].finish_reason is None)
            return Chunk(finish_reason="length", usage=self._usage(output), prompt_logprobs=scores)
        return replace(self._answer(output), prompt_logprobs=scores)

    def _prompt_logprobs(self, output: Any) -> Iterator[TokenLogprob]:
        tokens, most = self._request.prompt.token_ids, self._request.prompt_logprobs or 0
        for index, token in enumerate(tokens):
            if not index:
                yield TokenLogprob(Candidate(token, self._vocabulary.label(token), 0.0))
            else:
                yield self._logprob(token, output.prompt_logprobs[index], most)

    def _answer(self, output: Any) -> Chunk:
        completion = output.outputs[0]
        reason = completion.finish_reason
        if reason is not None and reason not in _REASONS:
            self._error = _ended_by_vllm(reason, self._request)
            self._end(abort=False)
            self._raise_end()
        tokens = tuple(completion.token_ids)
        # The token that ends an answer counts, but is no part of it.
        shown = tokens[:-1] if reason == "stop" else tokens
        released, used = self._release(tokens if self._request.include_stop else shown, completion.logprobs)
        if used is not None:
            self._completion_tokens += used
            self._end(abort=reason is None)
            return self._last(released, tokens[:used], "stop", output)
        self._completion_tokens += len(tokens)
        if reason is None:
            return released.chunk(shown)
        self._end(abort=False)
        rest = self._output.finish()
        ended = released.then(rest)
        if reason == "stop" and completion.logprobs:
            end = self._logprob(tokens[-1], completion.logprobs[-1], self._request.logprobs or 0)
            ended = ended.with_end(self._request, end)
        return self._last(ended, shown, "stop" if rest.stopped else _REASONS[reason], output)

    def _release(self, tokens: tuple[int, ...], logprobs: Any) -> tuple[Released, int | None]:
        """What ``tokens`` add to the answer, and how many of them there were up to a stop string."""
        push, wanted = self._output.push, self._request.logprobs or 0
        if len(tokens) == 1 and not logprobs:
            released = push(tokens[0])
            return released, 1 if released.stopped else None
        whole = Released()
        for index, token in enumerate(tokens):
            entry = self._logprob(token, logprobs[index], wanted) if logprobs else None
            whole = whole.then(push(token, entry))
            if whole.stopped:
                return whole, index + 1
        return whole, None

    def _last(
        self, released: Released, token_ids: tuple[int, ...], reason: FinishReason, output: Any
    ) -> Chunk:
        return released.chunk(token_ids, finish_of(reason, self._output), self._usage(output))

    def _logprob(self, token: int, position: Any, wanted: int) -> TokenLogprob:
        piece, named = self._vocabulary.label, self._request.logprob_token_ids
        if named:
            ranked = [(i, position[i]) for i in named]
        else:
            ranked = sorted(position.items(), key=lambda item: item[1].rank)
            ranked = [item for item in ranked if item[1].rank <= wanted][:wanted]
        top = [Candidate(i, piece(i), found.logprob) for i, found in ranked]
        chosen = position[token]
        return TokenLogprob(Candidate(token, piece(token), chosen.logprob), tuple(top), chosen.rank or 0)

    def _usage(self, output: Any) -> Usage:
        prompt = len(self._request.prompt.token_ids)
        cached = min(output.num_cached_tokens or 0, prompt)
        return Usage(prompt, self._completion_tokens, cached, self._output.reasoning_tokens)


def _ended_by_vllm(reason: str, request: GenerationRequest) -> EngineError:
    if reason == "error" and request.structure is not None:  # so it ends what its grammar cannot follow
        return RequestError(
            "the answer cannot go on in the form that was asked for: its structure exceeds the limits that "
            "vLLM has for one: make it simpler",
            param="response_format",
        )
    return EngineError(f"vLLM ended the request: {reason}")


def translate(error: Exception) -> EngineError:
    """An error of vLLM's as ours."""
    from vllm.v1.engine.exceptions import EngineDeadError

    if isinstance(error, EngineDeadError):
        return EngineError(DIED)
    if isinstance(error, EngineError):
        return error
    if is_request_fault(error):
        return request_error(error)
    return EngineError(f"vLLM failed: {error}")
