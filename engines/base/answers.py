"""Answers: chunks of tokens, and what tells content, reasoning and tool calls apart in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from engines.base.structure import Structure
from engines.base.tools import ToolUse

FinishReason = Literal["stop", "length", "tool_calls"]


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
    """Token counts of one sequence: ``cached_tokens`` of the prompt came from the prefix cache,
    ``reasoning_tokens`` of the completion are reasoning."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of the call number ``index``: its id and name come once, its arguments (JSON) in parts."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """The part of an answer that became certain since the last chunk.

    ``text`` is content: it never ends inside a character and never holds any part of a stop string; it is
    empty while text is held back. ``reasoning`` and ``tool_calls`` are what the request's `AnswerPlan` told
    apart; within a chunk the order is reasoning, text, calls. ``token_ids`` were sampled since the last
    chunk, also those whose text is still held back. ``logprobs`` belong to ``text``. The last chunk, and only
    it, has ``finish_reason`` and ``usage``; the first has ``prompt_logprobs``, if they were asked for: one
    for each token of the prompt, of which the first has the log probability 0, as nothing comes before it.
    ``stop`` is the stop string that ended the answer, if one did.
    """

    text: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    stop: str = ""


class AnswerDelta(NamedTuple):
    """A part of a chat answer, told apart: content, reasoning, or tool calls.

    A named tuple, as one is made for every token: a frozen dataclass costs twice as much.
    """

    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()


class AnswerReader(Protocol):
    """Reader of one answer: tells content, reasoning and tool calls apart as the tokens come."""

    @property
    def in_reasoning(self) -> bool:
        """Whether what comes next is reasoning."""
        ...

    def feed(self, text: str, token: int, special: str = "") -> AnswerDelta:
        """The parts that became certain with ``token``, which adds ``text`` to the answer.

        ``text`` is empty inside a character, and for control tokens: ``special`` is the name of such a one,
        "<|channel|>" for example, and empty for all others.
        """
        ...

    def finish(self) -> AnswerDelta:
        """The parts that were held back when the answer ended."""
        ...


class AnswerPlan(Protocol):
    """Plan of the answers to one chat: how they are read, and the form that they must have."""

    @property
    def tools(self) -> ToolUse | None:
        """The tools that may be called."""
        ...

    @property
    def structure(self) -> Structure | None:
        """The form of what follows the reasoning; None if that is free."""
        ...

    def reader(self) -> AnswerReader:
        """A reader for one answer."""
        ...
