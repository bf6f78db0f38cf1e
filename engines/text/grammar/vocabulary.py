"""Vocabulary of a model as grammars need it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from llguidance import LLTokenizer


class GrammarVocabulary(Protocol):
    """The tokens that masks tell apart. Any thread may use it."""

    def lltokenizer(self) -> LLTokenizer:
        """The model's tokens for llguidance: made once (about a second: never call this on the event loop).

        It knows *all* token ids that end an answer, and has as many tokens as the model has logits.
        """
        ...


class LazyTokenizer:
    """A `GrammarVocabulary` that is made when it is first needed."""

    def __init__(self, make: Callable[[], LLTokenizer]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: LLTokenizer | None = None

    def lltokenizer(self) -> LLTokenizer:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made
