"""A compiled grammar: where every answer in its form begins."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from engines.text.grammar.mask import TokenMask

if TYPE_CHECKING:
    from llguidance import LLMatcher


class Grammar:
    """The beginning of a grammar, from which each sequence starts with a copy. Any thread may use it.

    ``make`` is called once, when the first copy is needed; it raises `RequestError`.
    """

    def __init__(self, make: Callable[[], LLMatcher]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._beginning: LLMatcher | None = None

    def matcher(self) -> LLMatcher:
        """A matcher of its own for one sequence."""
        with self._lock:
            if self._beginning is None:
                self._beginning = self._make()
            return self._beginning.deep_copy()

    def mask(self, generated: Sequence[int] = ()) -> TokenMask:
        """The mask of a sequence that has the tokens ``generated`` already."""
        return TokenMask(self.matcher, generated)
