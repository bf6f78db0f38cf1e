"""Answers of chats and completions, translated: OpenAI's events become Ollama's lines, or one document."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.answer_bytes import DONE, LineSplitter, error_message, event_data
from app.dialects.ollama.calls import StreamedCalls
from app.dialects.ollama.reply import JSON, NDJSON, OllamaTranslation
from app.dialects.ollama.timing import Timing, now
from app.dialects.openai.wire import usage_of
from app.sse import to_json
from balancer.errors import BadAnswer
from balancer.proxy.headers import Header, is_events
from engines.base import Usage


@dataclass(slots=True)
class AnswerPiece:
    """A piece of an answer, or all of it."""

    text: str = ""
    thinking: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return not (self.text or self.thinking or self.calls or self.logprobs)

    def add(self, other: AnswerPiece) -> None:
        self.text += other.text
        self.thinking += other.thinking
        self.calls += other.calls
        self.logprobs += other.logprobs


Shape = Callable[[AnswerPiece], dict[str, Any]]
"""Makes the fields of a route's answers that hold what was generated."""


def chat_shape(piece: AnswerPiece) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": piece.text}
    if piece.thinking:
        message["thinking"] = piece.thinking
    if piece.calls:
        message["tool_calls"] = piece.calls
    return {"message": message}


def generate_shape(piece: AnswerPiece) -> dict[str, Any]:
    return {"response": piece.text, **({"thinking": piece.thinking} if piece.thinking else {})}


class GenerationTranslation(OllamaTranslation):
    """The way back of an answer that comes as OpenAI's events, of a chat or a completion.

    ``stream``: a line for each piece; else one document at the end. ``is_load``: the request was there to
    load the model, and what was generated does not count.
    """

    def __init__(
        self, model: str, timing: Timing, shape: Shape, *, stream: bool, is_load: bool = False
    ) -> None:
        super().__init__(NDJSON if stream else JSON)
        self._model = model
        self._timing = timing
        self._shape = shape
        self._stream = stream
        self._is_load = is_load
        self._lines = LineSplitter()
        self._calls = StreamedCalls()
        self._whole = AnswerPiece()
        self._usage = Usage(0, 0)
        self._reason = ""

    def begin(self, status: int, headers: list[Header]) -> list[Header]:
        if status < 400 and not is_events(headers):
            raise BadAnswer("the upstream was asked for a stream, and answered with something else")
        return super().begin(status, headers)

    def _read(self, data: bytes) -> bytes:
        pieces = []
        for line in self._lines.feed(data):
            payload = event_data(line)
            if payload and payload != DONE and (piece := self._checked(payload)) is not None:
                pieces.append(piece)
        return b"".join(pieces)

    def _checked(self, payload: bytes) -> bytes | None:
        """What the client gets of an event. Raises `BadAnswer`."""
        event = _event(payload)
        try:
            return self._piece(event)
        except (TypeError, AttributeError, LookupError, ValueError) as error:
            raise BadAnswer("the upstream sent an event that is none of its API") from error

    def _piece(self, event: Mapping[str, Any]) -> bytes | None:
        if event.get("usage"):
            self._usage = usage_of(event["usage"])
        choices = event.get("choices")
        if not choices:
            return None
        piece = self._read_choice(choices[0])
        if piece.is_empty or self._is_load:
            return None
        self._timing.note_first()
        if self._stream:
            return self._line({**self._told(piece), "done": False})
        self._whole.add(piece)
        return None

    def _read_choice(self, choice: Mapping[str, Any]) -> AnswerPiece:
        delta, reason = choice.get("delta"), choice.get("finish_reason")
        self._reason = reason or self._reason
        if delta is None:  # of a completion
            return AnswerPiece(choice.get("text") or "", logprobs=_of_completion(choice.get("logprobs")))
        for call in delta.get("tool_calls") or ():
            self._timing.note_first()
            self._calls.add(call)
        calls, text = self._calls.whole(is_over=bool(reason))
        thinking = delta.get("reasoning_content") or delta.get("reasoning") or ""
        logprobs = _of_chat(choice.get("logprobs"))
        return AnswerPiece((delta.get("content") or "") + text, thinking, calls, logprobs)

    def _finish(self) -> bytes:
        usage = self._usage
        if self._is_load:
            took = {"done_reason": "load", **self._timing.total_and_load()}
        else:
            took = {
                "done_reason": "length" if self._reason == "length" else "stop",
                **self._timing.total_and_load(),
                "prompt_eval_count": usage.prompt_tokens,
                "eval_count": usage.completion_tokens,
                **self._timing.parts(),
            }
        return self._line({**self._told(self._whole), "done": True, **took})

    def _told(self, piece: AnswerPiece) -> dict[str, Any]:
        told = {"model": self._model, "created_at": now(), **self._shape(piece)}
        return {**told, "logprobs": piece.logprobs} if piece.logprobs else told

    def _line(self, document: Mapping[str, Any]) -> bytes:
        return to_json(document) + b"\n"


def _event(payload: bytes) -> Mapping[str, Any]:
    """Raises `BadAnswer` for what is no event, or tells of an error."""
    try:
        event = json.loads(payload)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict):
        raise BadAnswer("the upstream sent an event that is no JSON object")
    if event.get("error"):
        raise BadAnswer(error_message(payload))
    return event


def _of_chat(logprobs: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """In OpenAI's form for chats they are Ollama's."""
    return list((logprobs or {}).get("content") or ())


def _of_completion(logprobs: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    if not logprobs:
        return []
    tokens: Sequence[str] = logprobs["tokens"]
    scores: Sequence[float] = logprobs["token_logprobs"]
    tops = logprobs.get("top_logprobs") or [None] * len(tokens)
    return [
        {"token": token, "logprob": score, "top_logprobs": [_top(each) for each in (top or {}).items()]}
        for token, score, top in zip(tokens, scores, tops, strict=True)
    ]


def _top(entry: tuple[str, float]) -> dict[str, Any]:
    return {"token": entry[0], "logprob": entry[1]}
