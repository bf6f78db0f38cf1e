"""Bad words: texts that an answer must not have, as the runs of tokens that would make them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

Run = tuple[int, ...]

UNWANTED = 1e4
"""Taken from the logit of what would complete a bad word: it is drawn only if all else is forbidden."""


class Tokenizes(Protocol):
    def tokenize(self, text: str, *, add_special: bool) -> Run: ...


def token_runs(words: Sequence[str], vocabulary: Tokenizes) -> tuple[Run, ...]:
    """The tokens of each word, at the beginning of a text and behind a space.

    As in vLLM, a word behind a space counts if that is a run of its own and no longer.
    """
    found: dict[Run, None] = {}
    for word in words:
        plain = vocabulary.tokenize(word.lstrip(), add_special=False)
        spaced = vocabulary.tokenize(" " + word.lstrip(), add_special=False)
        if plain:
            found[plain] = None
        if plain and len(spaced) == len(plain) and spaced[0] != plain[0]:
            found[spaced] = None
    return tuple(found)


class BadWords:
    """The runs that must not be completed, and how far the answer came in them."""

    def __init__(self, runs: Sequence[Run], generated: Sequence[int] = ()) -> None:
        self._single = [run[0] for run in runs if len(run) == 1]
        self._longer = [run for run in runs if len(run) > 1]
        self._most = max((len(run) for run in self._longer), default=1) - 1
        self._tail: Run = ()
        for token in generated:
            self.add(token)

    def add(self, token: int) -> None:
        """Note that the answer went on with ``token``."""
        self._tail = (*self._tail, token)[-self._most :] if self._most else ()

    def banned(self) -> list[int]:
        """The tokens that would complete a run now."""
        tail = self._tail
        return self._single + [run[-1] for run in self._longer if tail[1 - len(run) :] == run[:-1]]
