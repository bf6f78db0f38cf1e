"""Chunks to the wire: what every answer format shares."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from engines.base import Chunk, TokenLogprob, Usage

# What stands in a frame's template where the text goes. No JSON text contains it: it is a control character.
_HOLE = "\x00"
_HOLE_JSON = json.dumps(_HOLE)


@dataclass(slots=True)
class Answer:
    """One choice, drained."""

    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: str | None = None

    def add(self, chunk: Chunk) -> None:
        self.text += chunk.text
        self.logprobs.extend(chunk.logprobs)
        self.finish_reason = chunk.finish_reason or self.finish_reason


class AnswerEvents(Protocol):
    """Writes the choices of one request as server-sent events."""

    def write(self, index: int, chunk: Chunk) -> bytes:
        """What choice ``index`` sends of ``chunk``; nothing if all of it is held back."""
        ...


class AnswerFormat(Protocol):
    """How a resource writes its answers; one object for each run of a request."""

    @property
    def created(self) -> int:
        """When the answer was begun, in Unix time."""
        ...

    def opening(self, index: int) -> Any | None:
        """The event before a choice's first chunk, or None, as in an answer that was begun elsewhere."""
        ...

    def event(
        self,
        index: int,
        text: str = "",
        logprobs: Sequence[TokenLogprob] = (),
        finish_reason: str | None = None,
    ) -> dict[str, Any]: ...

    def usage_event(self, usage: Usage) -> dict[str, Any]: ...

    def events(self) -> AnswerEvents: ...

    def answers(self) -> Sequence[Answer]:
        """An empty answer for each choice, to be filled and given to `document`."""
        ...

    def document(self, answers: Sequence[Any], usage: Usage) -> dict[str, Any]:
        """The whole answer, for a request that does not stream."""
        ...


def now() -> int:
    return int(time.time())


# json.dumps would make an encoder for every call that does not use its defaults.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def to_json(value: Any) -> bytes:
    return _encode(value).encode("utf-8", "replace")


def sse(value: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + to_json(value) + b"\n\n"


class TextFrames:
    """Events that carry nothing but text, from a template: nearly all events, so they must be cheap."""

    def __init__(self, make: Callable[[int, str], dict[str, Any]]) -> None:
        """``make`` gives a choice's event with a text in it."""
        self._make = make
        self._templates: dict[int, tuple[bytes, bytes]] = {}

    def frame(self, index: int, text: str) -> bytes:
        template = self._templates.get(index)
        if template is None:
            before, after = sse(self._make(index, _HOLE)).split(_HOLE_JSON.encode())
            template = self._templates[index] = (before, after)
        return template[0] + to_json(text) + template[1]


class TextEvents:
    """The events of answers whose text is all content."""

    def __init__(self, format: AnswerFormat) -> None:
        self._format = format
        self._frames = TextFrames(format.event)
        self._opened: set[int] = set()

    def write(self, index: int, chunk: Chunk) -> bytes:
        data = b"" if index in self._opened else self._open(index)
        if chunk.logprobs:
            data += sse(self._format.event(index, chunk.text, chunk.logprobs))
        elif chunk.text:
            data += self._frames.frame(index, chunk.text)
        if chunk.finish_reason is not None:
            # An event of its own: some clients drop text that comes with the finish reason.
            data += sse(self._format.event(index, finish_reason=chunk.finish_reason))
        return data

    def _open(self, index: int) -> bytes:
        self._opened.add(index)
        event = self._format.opening(index)
        return b"" if event is None else sse(event)


def usage_info(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def printable(raw: bytes) -> str:
    """A token's bytes as text; half a character shows as U+FFFD."""
    return raw.decode("utf-8", "replace")
