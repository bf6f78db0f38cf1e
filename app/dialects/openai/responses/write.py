"""Writer of responses: the ``response`` object, and the events of its stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.dialects.openai.events import now, token_logprob
from app.dialects.openai.responses.output import ItemStatus, OutputItem, ResponseOutput, Unheard
from app.dialects.openai.responses.parse import ResponseTask
from app.dialects.openai.wire import DONE
from app.inference.answer import Answer
from app.inference.dialect import AnswerContext
from app.sse import to_json
from engines.base import Chunk, TokenLogprob, Usage

# At most as many events come of one token; whoever goes on with an answer counts from there.
_EVENTS_A_TOKEN = 16

# Deltas and ends of each kind of item, and the field that the end has the whole in.
_DELTAS = {
    "message": b"response.output_text.delta",
    "reasoning": b"response.reasoning_text.delta",
    "function_call": b"response.function_call_arguments.delta",
    "custom_tool_call": b"response.custom_tool_call_input.delta",
}
_ENDS = {
    "message": ("response.output_text.done", "text"),
    "reasoning": ("response.reasoning_text.done", "text"),
    "function_call": ("response.function_call_arguments.done", "arguments"),
    "custom_tool_call": ("response.custom_tool_call_input.done", "input"),
}
_WITH_PARTS = frozenset({"message", "reasoning"})


class ResponseAnswer(Answer):
    """An answer that keeps the order of its parts."""

    __slots__ = ("output",)

    def __init__(self, output: ResponseOutput) -> None:
        super().__init__()
        self.output = output

    def add(self, chunk: Chunk) -> None:
        self.output.add(chunk)
        self.finish_reason = chunk.finish_reason or self.finish_reason


class ResponseWriter:
    """Events and documents of one task (`AnswerWriter`); hears what happens to its output."""

    def __init__(self, task: ResponseTask, context: AnswerContext) -> None:
        begun = context.resume_point
        self.created = now() if begun is None else begun.created
        self._answer = context.answer_id.removeprefix("req_")
        self._task = task
        self._head = {
            "id": f"resp_{self._answer}",
            "object": "response",
            "created_at": self.created,
            "model": task.target.name,
            **task.repeated,
        }
        self._head_json = b""
        self._opens = begun is None
        self._number = 0 if begun is None else _EVENTS_A_TOKEN * (len(begun.token_ids) + 1)
        self._events: list[bytes] = []
        self._delta = b""  # the beginning of the open item's deltas
        self._finish_reason: str | None = None
        self._output = self._new_output(self)
        for part in context.begun:
            self._output.begin_with(part)

    # -- streams -----------------------------------------------------------------------------------

    def opening(self, index: int) -> bytes:
        if not self._opens:
            return b""
        response = self._response(_tail("in_progress", [], None, 0))
        return self._told(b"response.created", response) + self._told(b"response.in_progress", response)

    def write(self, index: int, chunk: Chunk) -> bytes:
        self._output.add(chunk)
        if chunk.finish_reason is not None:
            self._finish_reason = chunk.finish_reason
        events, self._events = self._events, []
        return events[0] if len(events) == 1 else b"".join(events)

    def closing(self, usage: Usage) -> bytes:
        status = _status(self._finish_reason)
        response = self._response(_tail(status, self._output.items, usage, now()))
        return self._told(b"response.%b" % status.encode(), response) + DONE

    # -- documents ---------------------------------------------------------------------------------

    def answers(self) -> Sequence[Answer]:
        return [ResponseAnswer(self._new_output(Unheard()))]

    def document(self, answers: Sequence[Answer], usage: Usage) -> dict[str, Any]:
        (answer,) = answers
        assert isinstance(answer, ResponseAnswer)
        return {**self._head, **_tail(_status(answer.finish_reason), answer.output.items, usage, now())}

    # -- the output (`OutputListener`) -------------------------------------------------------------

    def opened(self, item: OutputItem) -> None:
        added = {"output_index": item.index, "item": item.told("in_progress")}
        self._tell(b"response.output_item.added", added)
        if item.kind in _WITH_PARTS:
            self._tell(b"response.content_part.added", {**_place(item), "part": item.part("")})
        self._delta = _beginning(item)

    def went_on(self, item: OutputItem, text: str, logprobs: tuple[TokenLogprob, ...]) -> None:
        if not self._delta:
            self._delta = _beginning(item)
        scores = b'"logprobs":[],' if item.kind == "message" else b""
        if logprobs and item.kind == "message":
            scores = b'"logprobs":%b,' % to_json([token_logprob(entry) for entry in logprobs])
        number, self._number = self._number, self._number + 1
        self._events.append(
            b'%b%b,%b"sequence_number":%d}\n\n' % (self._delta, to_json(text), scores, number)
        )

    def closed(self, item: OutputItem, status: ItemStatus) -> None:
        name, field = _ENDS[item.kind]
        text, place = item.text, _place(item)
        scores = {"logprobs": [token_logprob(e) for e in item.logprobs]} if item.kind == "message" else {}
        self._tell(name.encode(), {**place, field: text, **scores})
        if item.kind in _WITH_PARTS:
            self._tell(b"response.content_part.done", {**place, "part": item.part(text)})
        self._tell(b"response.output_item.done", {"output_index": item.index, "item": item.told(status)})

    # ----------------------------------------------------------------------------------------------

    def _new_output(self, listener: ResponseWriter | Unheard) -> ResponseOutput:
        task = self._task
        return ResponseOutput(
            self._answer, task.toolbox, listener, reasons=task.tell_reasoning, seals=task.seals
        )

    def _tell(self, kind: bytes, fields: Mapping[str, Any]) -> None:
        self._events.append(self._event(kind, to_json(fields)))

    def _told(self, kind: bytes, response: bytes) -> bytes:
        return self._event(kind, b'{"response":%b}' % response)

    def _event(self, kind: bytes, fields: bytes) -> bytes:
        """An event with ``fields``, a JSON object that is not empty."""
        number, self._number = self._number, self._number + 1
        head = b'event: %b\ndata: {"type":"%b","sequence_number":%d,' % (kind, kind, number)
        return head + fields[1:] + b"\n\n"

    def _response(self, tail: Mapping[str, Any]) -> bytes:
        """The response as JSON: three of a stream's events have it, and a request's tools may be large."""
        if not self._head_json:
            self._head_json = to_json(self._head)[:-1] + b","
        return self._head_json + to_json(tail)[1:]


def _beginning(item: OutputItem) -> bytes:
    """The beginning of every delta of ``item``: nearly all events are such, so they must be cheap."""
    kind = _DELTAS[item.kind]
    place = to_json(_place(item))[1:-1]
    return b'event: %b\ndata: {"type":"%b",%b,"delta":' % (kind, kind, place)


def _place(item: OutputItem) -> dict[str, Any]:
    place = {"item_id": item.id, "output_index": item.index}
    return {**place, "content_index": 0} if item.kind in _WITH_PARTS else place


def _status(finish_reason: str | None) -> str:
    return "incomplete" if finish_reason == "length" else "completed"


def _tail(status: str, output: list[dict[str, Any]], usage: Usage | None, completed: int) -> dict[str, Any]:
    """The fields that tell how the response went. Its usage is last, where a proxy looks for it."""
    return {
        "status": status,
        "completed_at": completed if status == "completed" else None,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "output": output,
        "usage": None if usage is None else usage_of(usage),
    }


def usage_of(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
