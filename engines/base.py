"""The contract every engine fulfils, and the values that cross it.

All values are frozen: an engine may hand them between threads without copying. Long because a contract is
read as a whole.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

FinishReason = Literal["stop", "length"]

# What numbers of 32 bits can be computed with: colder is greedy (vLLM draws the line here too).
GREEDY_BELOW = 1e-5
LEAST_TOP_P = 1e-6
LEAST_REPETITION_PENALTY = 0.01
MOST_TOP_K = 2**31 - 1


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """The facts of a loaded model: its engine, its devices, and its limits.

    ``context_length`` is in tokens, prompt and completion together, ``longest_context`` what the model was
    trained for, 0 if that is unknown; ``max_sequences`` is how many sequences can decode at once. ``memory``
    is what this engine holds in bytes, as far as it knows: weights, KV cache and work space, on whatever
    device; ``memory_asleep`` is what of it stays, in main memory, while the engine sleeps. ``capabilities``
    are of "chat", "completion", "tools", "reasoning", "structured", "adapters", "fim" and "sleep".
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
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids ready for prefill; ``text`` is what they were made from, where that is known, and
    ``variables`` are those that a request gave the chat template. An answer ends with any of ``ends`` too."""

    token_ids: tuple[int, ...]
    text: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    ends: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that is shown beside the one in which something is to be filled in."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class RareSampling:
    """Ways of drawing that few engines have (`engines.descriptor`), under llama.cpp's names and as it means
    them. By default each is off: penalties see so many of the last tokens as ``repeat_last_n`` says, and -1
    is all."""

    repeat_last_n: int = -1
    mirostat: Literal[0, 1, 2] = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    top_n_sigma: float = 0.0
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0


NOTHING_RARE = RareSampling()


@dataclass(frozen=True, slots=True)
class Sampling:
    """The rules by which the next token is drawn.

    ``temperature`` 0 is greedy. ``top_k`` 0, and ``top_p``, ``typical_p`` 1 and ``min_p`` 0 switch their
    filter off; not every engine has typical sampling (`engines.descriptor`).
    ``presence_penalty`` and ``frequency_penalty`` see generated tokens only; ``repetition_penalty``
    (1 = off) sees the prompt too. ``logit_bias`` pairs a token id with what is added to its logit.
    ``allowed_token_ids`` are all that may be drawn; None: any. None of ``bad_words`` is generated, neither
    as it is nor behind a space, unless nothing else may be. Extreme values become the most extreme ones that
    still can be computed with.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    typical_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    allowed_token_ids: tuple[int, ...] | None = None
    bad_words: tuple[str, ...] = ()
    rare: RareSampling = NOTHING_RARE
    seed: int | None = None

    def __post_init__(self) -> None:
        # Of tokens that are equally likely, a filter keeps another than the greedy choice is.
        is_cold = self.temperature < GREEDY_BELOW or self.top_p < LEAST_TOP_P
        bounded = {
            "temperature": 0.0 if is_cold else self.temperature,
            "top_p": max(self.top_p, LEAST_TOP_P),
            "top_k": min(self.top_k, MOST_TOP_K),
            "repetition_penalty": max(self.repetition_penalty, LEAST_REPETITION_PENALTY),
        }
        for name, value in bounded.items():
            object.__setattr__(self, name, value)

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0.0


@dataclass(frozen=True, slots=True)
class Structure:
    """The form that the output must match: a JSON schema or grammar as text, a regular expression, one of
    several texts (``choices``), or just any JSON object (neither)."""

    kind: Literal["json_object", "json_schema", "regex", "choice", "grammar"]
    value: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One sequence to generate.

    ``max_tokens`` None means "up to the context's end"; what it asks for beyond that is cut, or refused if it
    ``must_fit``. ``logprobs`` None switches log probabilities off; a number asks for that many alternatives a
    token (0: the chosen token's only). ``adapter`` names a LoRA adapter that the model was loaded with. An
    engine refuses with `UnsupportedFeature` what its capabilities do not name.

    ``stop_token_ids`` end an answer as the model's end tokens do, also with ``ignore_eos``. What ends an
    answer, a stop string or such a token, is no part of its text, except with ``include_stop``. Special
    tokens have no text, except with ``show_special``.

    With ``prompt_logprobs`` the first chunk tells the log probabilities of the prompt, with so many
    alternatives a token, and those of the answer tell its end token too; ``max_tokens`` may be 0.

    ``generated`` are token ids of this answer that were generated before, elsewhere. They count as
    generated (``max_tokens``, ``min_tokens``, penalties, `Usage.completion_tokens`) but are not sent again,
    neither as `Chunk.token_ids` nor as text; what of their text was held back (half a character, the
    beginning of a stop string) still is, without its log probabilities, which only that engine knew.
    Drawing goes on with a fresh generator, see `generator_seed`: the same each time, but not what would
    have come, except from an engine whose draws depend on their number alone (MLX).
    """

    request_id: str
    prompt: Prompt
    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop: bool = False
    show_special: bool = False
    ignore_eos: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    structure: Structure | None = None
    adapter: str | None = None
    generated: tuple[int, ...] = ()
    must_fit: bool = False

    @property
    def generator_seed(self) -> int | None:
        """Seeds the generator that draws: ``sampling.seed``, and in an answer that goes on one derived
        from it and the number of tokens there are, as the first draws must not be repeated."""
        seed = self.sampling.seed
        if seed is None or not self.generated:
            return seed
        return zlib.crc32(b"%d/%d" % (seed, len(self.generated)))


@dataclass(frozen=True, slots=True)
class Rendering:
    """The way in which a chat becomes a prompt.

    ``template_args`` are further variables of the chat template. ``reasoning_effort`` is given to templates
    that take one, or switches their reasoning on or off. ``add_generation_prompt``: the prompt ends where the
    answer begins. ``continue_final``: it ends inside the last message instead, with that message's text.
    """

    template_args: Mapping[str, Any] = field(default_factory=dict)
    reasoning_effort: str | None = None
    add_generation_prompt: bool = True
    continue_final: bool = False


NEW_ANSWER = Rendering()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token and its natural-log probability; ``text`` are the raw bytes, perhaps part of a character."""

    token_id: int
    text: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """The chosen token, its place among all (1 is the most likely; 0: not told), and the most likely tokens
    at its position, best first."""

    chosen: Candidate
    top: tuple[Candidate, ...] = ()
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one sequence; ``cached_tokens`` of the prompt came from the prefix cache."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Chunk:
    """The part of an answer that became certain since the last chunk.

    ``text`` never ends inside a character and never holds any part of a stop string; it is empty
    while text is held back. ``token_ids`` were sampled since the last chunk, also those whose text is
    still held back. ``logprobs`` belong to the released text. The last chunk, and only it, has
    ``finish_reason`` and ``usage``; the first has ``prompt_logprobs``, if they were asked for: one for each
    token of the prompt, of which the first has the log probability 0, as nothing comes before it.
    """

    text: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    prompt_logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of the call number ``index``: its id and name come once, its arguments (JSON) in parts."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class AnswerDelta:
    """A part of a chat answer, told apart: content, reasoning, or tool calls."""

    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()


class AnswerParser(Protocol):
    """Tells content, reasoning and tool calls apart in the text of one chat answer."""

    def push(self, chunk: Chunk) -> AnswerDelta:
        """What ``chunk`` adds. The last chunk (with a ``finish_reason``) flushes what was held back."""
        ...


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


class Generates(Protocol):
    """The ability to generate text. All methods are called on the event loop's thread."""

    async def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        rendering: Rendering = NEW_ANSWER,
    ) -> Prompt:
        """Apply the model's own chat template. ``tools`` are function definitions in OpenAI's form.

        Raises `UnsupportedFeature` if the model has none, or one that takes no ``reasoning_effort``, and
        `RequestError` if the template refuses the messages.
        """
        ...

    async def render_infill(
        self, prefix: str | Sequence[int], suffix: str, files: Sequence[SourceFile] = ()
    ) -> Prompt:
        """The prompt for what is between ``prefix`` and ``suffix``; its text is the prefix.

        Raises `UnsupportedFeature` without the capability "fim".
        """
        ...

    def answer_parser(
        self, tools: Sequence[Mapping[str, Any]] | None = None, prompt: Prompt | None = None
    ) -> AnswerParser | None:
        """A parser for one answer of this model to ``prompt``; None where all of the text is content.

        The prompt tells the parser whether the template has already begun, or ended, the reasoning. Raises
        `UnsupportedFeature` for ``tools`` without the capability "tools".
        """
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

    async def tokenize(self, text: str, *, add_special: bool = True) -> tuple[int, ...]:
        """Token ids of ``text``; ``add_special`` puts the model's BOS in front if it wants one."""
        ...

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        """Text of ``token_ids``; bytes that form no character become U+FFFD."""
        ...


class Engine(Resident, Generates, Protocol):
    """One loaded model on one set of devices that generates text in this process."""


@runtime_checkable
class HasMetrics(Protocol):
    """An engine with figures of its own."""

    def metrics(self) -> Mapping[str, float]:
        """By name; ``_total`` at the end says that the value only grows."""
        ...
