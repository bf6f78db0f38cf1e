"""Pooler: the part that an engine supplies to its `PoolingThread`, a loaded model that makes vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from engines.base import EngineInfo, Vectors
from engines.text.tokenizer import TextVocabulary


class Pooler(Protocol):
    """Used on one thread only, except for ``info`` and ``vocabulary``."""

    @property
    def info(self) -> EngineInfo: ...

    @property
    def vocabulary(self) -> TextVocabulary: ...

    def count(self, lengths: Sequence[int]) -> int:
        """How many of the first of texts with so many tokens fit one pass: one always does."""
        ...

    def compute(self, texts: Sequence[Sequence[int]]) -> Vectors:
        """One row for each of ``texts``, the tokens of which fit one pass."""
        ...

    def close(self) -> None:
        """Free everything; nothing else is called afterwards."""
        ...


class OpenedPooler(NamedTuple):
    """The facts of a loaded model that the event loop needs."""

    info: EngineInfo
    vocabulary: TextVocabulary
