"""Chunks to chat completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.convert.answers import Answer, AnswerEvents, TextEvents, TextFrames, now, printable, sse, usage_info
from app.convert.parsed_answers import AnswerReader, Call, ParsedAnswer
from balancer.call import ResumePoint
from engines.base import Candidate, Chunk, TokenLogprob, ToolCallDelta, Usage


class ChatFormat:
    """OpenAI's ``chat.completion`` and ``chat.completion.chunk``.

    ``readers`` is one for each choice, or empty where all text is content. An answer that was ``begun``
    elsewhere has been opened there.
    """

    def __init__(
        self,
        *,
        request_id: str,
        model: str,
        choices: int,
        include_usage: bool,
        readers: Sequence[AnswerReader] = (),
        begun: ResumePoint | None = None,
    ) -> None:
        self.created = now() if begun is None else begun.created
        self._choices = choices
        self._opens = begun is None
        self._readers = readers
        self._head = {"id": f"chatcmpl-{request_id}", "created": self.created, "model": model}
        # With include_usage every event has the field: null until the last.
        self._usage = {"usage": None} if include_usage else {}

    def opening(self, index: int) -> dict[str, Any] | None:
        if not self._opens:
            return None
        # Where there may be no content, none is announced.
        return self._event(index, {"role": "assistant", "content": None if self._readers else ""})

    def event(
        self,
        index: int,
        text: str = "",
        logprobs: Sequence[TokenLogprob] = (),
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        return self._event(index, {"content": text} if text or logprobs else {}, logprobs, finish_reason)

    def reasoning_event(self, index: int, text: str) -> dict[str, Any]:
        return self._event(index, {"reasoning_content": text})

    def calls_event(self, index: int, calls: Sequence[ToolCallDelta]) -> dict[str, Any]:
        return self._event(index, {"tool_calls": [_call_delta(call) for call in calls]})

    def usage_event(self, usage: Usage) -> dict[str, Any]:
        return {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage_info(usage)}

    def events(self) -> AnswerEvents:
        return ParsedEvents(self, self._readers) if self._readers else TextEvents(self)

    def answers(self) -> Sequence[Answer]:
        if self._readers:
            return [ParsedAnswer(reader=reader) for reader in self._readers]
        return [Answer() for _ in range(self._choices)]

    def document(self, answers: Sequence[Answer], usage: Usage) -> dict[str, Any]:
        choices = [
            {
                "index": index,
                "message": _message(answer),
                "logprobs": _logprobs(answer.logprobs),
                "finish_reason": answer.finish_reason,
            }
            for index, answer in enumerate(answers)
        ]
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": usage_info(usage)}

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
        }
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice], **self._usage}


class ParsedEvents:
    """The events of answers that have reasoning and calls of tools too."""

    def __init__(self, format: ChatFormat, readers: Sequence[AnswerReader]) -> None:
        self._format = format
        self._readers = readers
        self._content = TextFrames(format.event)
        self._reasoning = TextFrames(format.reasoning_event)
        self._opened: set[int] = set()

    def write(self, index: int, chunk: Chunk) -> bytes:
        part = self._readers[index].read(chunk)
        data = b"" if index in self._opened else self._open(index)
        if part.reasoning:
            data += self._reasoning.frame(index, part.reasoning)
        if part.logprobs:
            data += sse(self._format.event(index, part.text, part.logprobs))
        elif part.text:
            data += self._content.frame(index, part.text)
        if part.tool_calls:
            data += sse(self._format.calls_event(index, part.tool_calls))
        if part.finish_reason is not None:
            data += sse(self._format.event(index, finish_reason=part.finish_reason))
        return data

    def _open(self, index: int) -> bytes:
        self._opened.add(index)
        return sse(self._format.opening(index))


def _message(answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
    if isinstance(answer, ParsedAnswer):
        if answer.reasoning:
            message["reasoning_content"] = answer.reasoning
        if answer.calls:
            message["content"] = answer.text or None
            message["tool_calls"] = [_call(call) for _, call in sorted(answer.calls.items())]
    return message


def _call(call: Call) -> dict[str, Any]:
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
    content = [
        {**_candidate(entry.chosen), "top_logprobs": [_candidate(c) for c in entry.top]} for entry in entries
    ]
    return {"content": content, "refusal": None}


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return {
        "token": printable(candidate.text),
        "logprob": candidate.logprob,
        "bytes": list(candidate.text),
    }
