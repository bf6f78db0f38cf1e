"""The engine contract: a loaded model, its state, and its abilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from engines.base.adapter import Adapter
from engines.base.answers import AnswerDelta, AnswerPlan, Chunk
from engines.base.media import Media
from engines.base.requests import NEW_ANSWER, GenerationRequest, Prompt, Rendering, SourceFile
from engines.base.structure import Structure
from engines.base.tools import ToolUse


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """The facts of a loaded model: its engine, its devices, and its limits.

    ``context_length`` is in tokens, prompt and completion together, ``longest_context`` what the model was
    trained for, 0 if that is unknown; ``max_sequences`` is how many sequences can decode at once. ``memory``
    is what this engine holds in bytes, as far as it knows: weights, KV cache and work space, on whatever
    device; ``memory_asleep`` is what of it stays, in main memory, while the engine sleeps. ``capabilities``
    are of "chat", "completion", "tools", "reasoning", "structured", "adapters", "embeddings", "rerank",
    "fim", "vision", "audio" and "sleep".

    Of a model that makes vectors, ``embedding_length`` is how long they are and ``pooling`` how the tokens'
    states become one ("mean", "cls", "last"; "rank" for scores). With ``matryoshka`` their beginnings are
    vectors too: of one of the lengths ``dimensions``, or of any where that is empty.
    """

    engine: str
    model: str
    context_length: int
    max_sequences: int
    devices: tuple[str, ...]
    capabilities: frozenset[str] = frozenset()
    memory: int = 0
    memory_asleep: int = 0
    longest_context: int = 0
    pooling: str = ""
    embedding_length: int = 0
    matryoshka: bool = False
    dimensions: tuple[int, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the engine makes progress, and if not, why."""

    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counters since load (tokens, preemptions, steps) and gauges of now (the others).

    ``kv_used`` and ``kv_total`` are in tokens; cells that only the prefix cache holds count as free.
    ``memory`` are the bytes held now, of an engine that takes what `EngineInfo.memory` says by and by; 0 for
    one that has all of it from the start.
    """

    running: int = 0
    waiting: int = 0
    kv_used: int = 0
    kv_total: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    preemptions: int = 0
    steps: int = 0
    memory: int = 0


class TokenStream(Protocol):
    """Chunks of one sequence, in order.

    ``close`` is synchronous and idempotent: it frees the sequence before the engine's next step, so
    that a client's disconnect needs no further ``await``. Iterating a closed stream ends it.
    Iteration raises `EngineError` when the engine failed.
    """

    def __aiter__(self) -> TokenStream: ...

    async def __anext__(self) -> Chunk: ...

    def close(self) -> None: ...


class Resident(Protocol):
    """A loaded model that holds memory: an engine of this process, or a worker process with one in it."""

    @property
    def info(self) -> EngineInfo: ...

    async def health(self) -> Health:
        """Progress-based: an engine with work that takes no step is unhealthy even if its thread lives."""
        ...

    def stats(self) -> EngineStats:
        """O(1), no I/O: read for every scrape and every balancing decision."""
        ...

    async def sleep(self) -> None:
        """Give memory back but stay quick to `wake`. Raises `UnsupportedFeature` without "sleep"."""
        ...

    async def wake(self) -> None: ...

    async def close(self) -> None:
        """Fail what is in flight, free everything, and return when it is freed. Idempotent."""
        ...


class Encodes(Protocol):
    """The ability to turn text into tokens and back. All methods are called on the event loop's thread."""

    async def tokenize(self, text: str, *, add_special: bool = True) -> tuple[int, ...]:
        """Token ids of ``text``; ``add_special`` puts the model's BOS in front if it wants one."""
        ...

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        """Text of ``token_ids``; bytes that form no character become U+FFFD."""
        ...

    def labels(self, token_ids: Sequence[int]) -> list[bytes]:
        """The bytes that name each token, perhaps part of a character; control tokens have a name too."""
        ...


class Generates(Encodes, Protocol):
    """The ability to generate text. All methods are called on the event loop's thread."""

    async def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        rendering: Rendering = NEW_ANSWER,
        media: Sequence[Media] = (),
    ) -> Prompt:
        """Apply the model's own chat template. ``tools`` are function definitions in OpenAI's form.

        The content of a message is text, or a list of parts: ``{"type": "text", "text"}``, and
        ``{"type": "image" or "audio", "index"}`` for one of ``media``.

        Raises `UnsupportedFeature` if the model has none, or one that takes no ``reasoning_effort``, and for
        media without the capabilities "vision" and "audio"; `RequestError` if the template refuses the
        messages, or media cannot be decoded.
        """
        ...

    async def render_infill(
        self, prefix: str | Sequence[int], suffix: str, files: Sequence[SourceFile] = ()
    ) -> Prompt:
        """The prompt for what is between ``prefix`` and ``suffix``; its text is the prefix.

        Raises `UnsupportedFeature` without the capability "fim".
        """
        ...

    def answer_plan(
        self, tools: ToolUse | None, prompt: Prompt, structure: Structure | None
    ) -> AnswerPlan | None:
        """The plan of this model's answers to ``prompt``; None where all of the text is content.

        ``structure`` is the form that content must have. The prompt tells whether the template has already
        begun, or ended, the reasoning. Raises `UnsupportedFeature` for ``tools`` without the capability
        "tools", `RequestError` for those that no call can be made of.
        """
        ...

    def can_resume(self, structure: Structure | None, plan: AnswerPlan | None) -> bool:
        """Whether an answer of such a form can go on from its tokens alone (`GenerationRequest.generated`),
        on another engine of this model."""
        ...

    def retell(self, request: GenerationRequest) -> Sequence[AnswerDelta]:
        """The parts of the answer that ``request.generated`` made, in order, which `generate` does not tell
        again."""
        ...

    async def prepare(self, structure: Structure) -> None:
        """Compile and check ``structure``, so that a bad grammar is refused before a slot is taken.

        Awaited before `generate` for every request with a structure. Raises `RequestError`, and
        `UnsupportedFeature` without the capability "structured".
        """
        ...

    def generate(self, request: GenerationRequest) -> TokenStream:
        """Queue the request and return its stream at once.

        Raises `ContextLengthExceeded` or `RequestError` before anything is queued, and
        `EngineError` if the engine is closed.
        """
        ...


class Engine(Resident, Generates, Protocol):
    """One loaded model on one set of devices that generates text in this process."""


@runtime_checkable
class Adapts(Protocol):
    """The ability to take LoRA adapters, and let go of them, while it runs. One adapter at a time comes or
    goes; requests name them (`GenerationRequest.adapter`)."""

    async def add_adapter(self, adapter: Adapter) -> None:
        """Load an adapter that was checked; nothing happens if one of its name is there. Raises
        `ModelLoadError`, and `UnsupportedFeature` without the capability "adapters"."""
        ...

    async def remove_adapter(self, name: str) -> None:
        """Take no more requests for the adapter, let those that run end, and free it."""
        ...


@runtime_checkable
class HasMetrics(Protocol):
    """An engine with figures of its own."""

    def metrics(self) -> Mapping[str, float]:
        """By name; ``_total`` at the end says that the value only grows."""
        ...
