"""Stepper: the part that an engine supplies to its `EngineThread`, a loaded model and its batch."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Generic, NamedTuple, Protocol, TypeVar

from engines.base import EngineInfo, TokenLogprob
from engines.batching.sequence import Sequence
from engines.batching.vocabulary import ModelVocabulary
from engines.errors import EngineError

S = TypeVar("S", bound=Sequence)


class Drawn(NamedTuple, Generic[S]):
    """A token that a step drew; `Sequence.extend` is yet to take it."""

    sequence: S
    token: int
    logprob: TokenLogprob | None = None


class Read(NamedTuple, Generic[S]):
    """A sequence whose prompt was computed, after which nothing is to be drawn."""

    sequence: S


class Failed(NamedTuple, Generic[S]):
    """A sequence that a step gave up; it is out of the batch."""

    sequence: S
    error: EngineError


class Gauges(NamedTuple):
    """The batch's part of `EngineStats`; ``kv_used`` and ``kv_total`` in tokens, ``memory`` in bytes."""

    running: int = 0
    waiting: int = 0
    kv_used: int = 0
    kv_total: int = 0
    preemptions: int = 0
    memory: int = 0


class Stepper(Protocol[S]):
    """A loaded model and the sequences that wait for it or run on it.

    Used on the engine thread only, except for ``info`` and ``vocabulary``.
    """

    @property
    def info(self) -> EngineInfo: ...

    @property
    def vocabulary(self) -> ModelVocabulary: ...

    @property
    def has_work(self) -> bool:
        """Whether any sequence waits or runs."""
        ...

    def submit(self, sequence: S) -> None:
        """Queue a sequence."""
        ...

    def remove(self, sequence: S) -> None:
        """Take a sequence out, wherever it is, because it ended or nobody wants it; what it computed may stay
        as a cached prefix. Nothing happens if it is not there."""
        ...

    def step(self) -> Seq[Drawn[S] | Read[S] | Failed[S]]:
        """Compute the next step of some sequences; of one that ends inside the results, the rest counts for
        nothing. An error that is raised ends the engine."""
        ...

    def gauges(self) -> Gauges: ...

    def close(self) -> None:
        """Free everything; nothing else is called afterwards."""
        ...
