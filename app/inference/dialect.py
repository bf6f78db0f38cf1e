"""The contract of a dialect: what one wire API has to say of its requests, answers and errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from app.inference.answer import Answer
from app.inference.targets import Resolved
from app.inference.task import Task
from balancer.call import ResumePoint, WireFormat
from engines.base import Chunk, Prompt, Usage

Resolve = Callable[[str], Resolved]


@dataclass(frozen=True, slots=True)
class AnswerContext:
    """The facts of the answers to one task that a writer needs.

    ``answer_id`` is no other answer's. ``choices`` is how many answers there are; ``has_parts``: there may be
    more in them than content. ``prompts`` are what they answer, one for each.
    An answer that another backend began, up to ``resume_point``, has been opened there.
    """

    answer_id: str
    choices: int
    has_parts: bool = False
    prompts: Sequence[Prompt] = ()
    resume_point: ResumePoint | None = None


class AnswerWriter(Protocol):
    """The bytes of the answers to one task, streamed or whole. One object for each run of a task."""

    @property
    def created(self) -> int:
        """The time at which the answer began, in Unix seconds."""
        ...

    def opening(self, index: int) -> bytes:
        """The events in front of the first chunk of choice ``index``, if there are any."""
        ...

    def write(self, index: int, chunk: Chunk) -> bytes:
        """The events of a chunk; none if all of it is held back."""
        ...

    def closing(self, usage: Usage) -> bytes:
        """The events that end the stream."""
        ...

    def answers(self) -> Sequence[Answer]:
        """An empty answer for each choice, to be filled and given to `document`."""
        ...

    def document(self, answers: Sequence[Answer], usage: Usage) -> dict[str, Any]:
        """The whole answer, for a task that does not stream."""
        ...


class Dialect(Protocol):
    """One wire API: schema, parser, writer and error events, and what a proxy must know of it."""

    @property
    def wire(self) -> WireFormat: ...

    def parse(self, document: Any, resolve: Resolve) -> Task:
        """The task that a request's JSON ``document`` asks for.

        Raises pydantic's `ValidationError` for what the schema does not allow, `EngineError` (`RequestError`,
        `UnsupportedFeature`, `ModelFileNotFound`) for what cannot be met.
        """
        ...

    def writer(self, task: Task, context: AnswerContext) -> AnswerWriter: ...

    def error_event(self, error: Exception) -> bytes:
        """The end of a stream that failed when its status had been sent."""
        ...
