"""The contract of a dialect: what one wire API has to say of its requests, answers and errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from app.inference.answer import Answer
from app.inference.outcome import RequestRecord
from app.inference.targets import Resolved
from app.inference.task import BaseTask, Task
from app.inference.wire_request import WireRequest
from balancer.call import Reply, ResumePoint, WireFormat
from engines.base import AnswerDelta, Chunk, Media, Prompt, Resident, Usage
from engines.models.purpose import Purpose


class Resolve(Protocol):
    """Finds the target of a request by its name, or without one by what it is for (`Targets.resolve`)."""

    def __call__(self, name: str, purpose: Purpose | None = None, /) -> Resolved: ...


T = TypeVar("T", bound=BaseTask)


@dataclass(frozen=True, slots=True)
class Execution:
    """One run of a task: for which request, kept in which record, on which engine, from where on, and with
    which media in its messages."""

    request: WireRequest
    record: RequestRecord
    resident: Resident
    resume_point: ResumePoint | None = None
    media: Sequence[Media] = ()


@dataclass(frozen=True, slots=True)
class AnswerContext:
    """The facts of the answers to one task that a writer needs.

    ``answer_id`` is no other answer's. ``choices`` is how many answers there are; ``has_parts``: there may be
    more in them than content. ``prompts`` are what they answer, one for each.
    An answer that another backend began, up to ``resume_point``, has been opened there; ``begun`` are the
    parts that it had by then, in order.
    """

    answer_id: str
    choices: int
    has_parts: bool = False
    prompts: Sequence[Prompt] = ()
    resume_point: ResumePoint | None = None
    begun: Sequence[AnswerDelta] = ()


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


class Dialect(Protocol[T]):
    """One wire API: schema, parser, writer and error events, and what a proxy must know of it.

    ``T`` is the kind of task that its requests are: `Task` for generated text, `EmbeddingTask` for vectors.
    """

    @property
    def wire(self) -> WireFormat: ...

    @property
    def has_default_model(self) -> bool:
        """Whether a request that names no model is for the default one."""
        ...

    def parse(self, document: Any, resolve: Resolve) -> T:
        """The task that a request's JSON ``document`` asks for.

        Raises pydantic's `ValidationError` for what the schema does not allow, `EngineError` (`RequestError`,
        `UnsupportedFeature`, `ModelFileNotFound`) for what cannot be met.
        """
        ...

    async def run(self, task: T, execution: Execution) -> Reply:
        """The reply of an engine of this process to ``task``: `pipeline.generate`, `embedding.run`."""
        ...

    def error_event(self, error: Exception, sent: bytes) -> bytes:
        """The end of a stream that failed when its status had been sent.

        ``sent`` are the first and the last events that were, or parts of them.
        """
        ...


class GeneratingDialect(Dialect[Task], Protocol):
    """A dialect whose answers are generated text."""

    def writer(self, task: Task, context: AnswerContext) -> AnswerWriter: ...
