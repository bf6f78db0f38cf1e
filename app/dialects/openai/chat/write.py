"""Writer of chat completions: ``chat.completion`` and ``chat.completion.chunk``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.dialects.openai.events import (
    TextFrames,
    TokenFacts,
    now,
    prompt_logprobs,
    token_logprob,
    usage_info,
)
from app.dialects.openai.wire import DONE
from app.inference.answer import Answer, CalledTool
from app.inference.dialect import AnswerContext
from app.inference.task import Task
from app.sse import sse
from engines.base import Chunk, TokenLogprob, ToolCallDelta, Usage


class ChatWriter:
    """Events and documents of one task (`AnswerWriter`)."""

    def __init__(self, task: Task, context: AnswerContext) -> None:
        begun = context.resume_point
        self.created = now() if begun is None else begun.created
        self._choices = context.choices
        self._opens = begun is None
        self._has_parts = context.has_parts
        self._tells_reasoning = task.tell_reasoning
        self._head = {
            "id": f"chatcmpl-{context.answer_id}",
            "created": self.created,
            "model": task.target.name,
        }
        self._tells_usage = task.include_usage
        # With include_usage every event has the field: null until the last.
        self._usage = {"usage": None} if task.include_usage else {}
        facts = self._facts = TokenFacts(task, context)
        self._content = TextFrames(
            lambda index, text: self._event(index, {"content": text}), alike=not facts.wanted
        )
        self._reasoning = TextFrames(
            lambda index, text: self._event(index, _reasoning(text)), alike=not facts.wanted
        )

    # -- streams -----------------------------------------------------------------------------------

    def opening(self, index: int) -> bytes:
        if not self._opens:
            return b""
        # Where there may be no content, none is announced.
        event = self._event(index, {"role": "assistant", "content": None if self._has_parts else ""})
        return sse({**event, **self._facts.of_prompt(index)})

    def write(self, index: int, chunk: Chunk) -> bytes:
        if self._facts.wanted:
            self._facts.note(index, chunk)
        data = b""
        if chunk.reasoning and self._tells_reasoning:
            data += self._reasoning.frame(index, chunk.reasoning)
        if chunk.logprobs:
            delta = {"content": chunk.text} if chunk.text or chunk.logprobs else {}
            data += sse(self._event(index, delta, chunk.logprobs))
        elif chunk.text:
            data += self._content.frame(index, chunk.text)
        if chunk.tool_calls:
            data += sse(self._event(index, {"tool_calls": [_call_delta(call) for call in chunk.tool_calls]}))
        if chunk.finish_reason is not None:
            # An event of its own: some clients drop text that comes with the finish reason.
            data += sse(self._event(index, {}, finish_reason=chunk.finish_reason))
        elif self._facts.untold(index):
            data += sse(self._event(index, {}))
        return data

    def closing(self, usage: Usage) -> bytes:
        if not self._tells_usage:
            return DONE
        event = {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage_info(usage)}
        return sse(event) + DONE

    # -- documents ---------------------------------------------------------------------------------

    def answers(self) -> Sequence[Answer]:
        return [Answer() for _ in range(self._choices)]

    def document(self, answers: Sequence[Answer], usage: Usage) -> dict[str, Any]:
        choices = [
            {
                "index": index,
                "message": _message(answer, tells_reasoning=self._tells_reasoning),
                "logprobs": _logprobs(answer.logprobs),
                "finish_reason": answer.finish_reason,
                **self._facts.of_answer(answer),
            }
            for index, answer in enumerate(answers)
        ]
        whole = {"object": "chat.completion", "choices": choices, "usage": usage_info(usage)}
        scores = answers[0].prompt_logprobs
        scored = {"prompt_logprobs": prompt_logprobs(scores)} if scores else {}
        return {**self._head, **whole, **scored, **self._facts.of_prompt(0)}

    def _event(
        self,
        index: int,
        delta: dict[str, Any],
        logprobs: Sequence[TokenLogprob] = (),
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": _logprobs(logprobs),
            "finish_reason": finish_reason,
            **self._facts.of_choice(index),
        }
        usage = self._facts.of_event(index) or self._usage
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice], **usage}


def _reasoning(text: str) -> dict[str, str]:
    """Clients look for it under either name, and under one only."""
    return {"reasoning_content": text, "reasoning": text}


def _message(answer: Answer, *, tells_reasoning: bool) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
    if answer.reasoning and tells_reasoning:
        message |= _reasoning(answer.reasoning)
    if answer.calls:
        message["content"] = answer.text or None
        message["tool_calls"] = [_call(call) for _, call in sorted(answer.calls.items())]
    return message


def _call(call: CalledTool) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def _call_delta(delta: ToolCallDelta) -> dict[str, Any]:
    if delta.name is None:
        return {"index": delta.index, "function": {"arguments": delta.arguments}}
    function = {"name": delta.name, "arguments": delta.arguments}
    return {"index": delta.index, "id": delta.id, "type": "function", "function": function}


def _logprobs(entries: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    if not entries:
        return None
    return {"content": [token_logprob(entry) for entry in entries], "refusal": None}
