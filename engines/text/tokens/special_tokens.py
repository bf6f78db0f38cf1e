"""Special tokens of a vocabulary: where they stand in a text, and how a client's text is kept from them."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from engines.text.tokens.fim import NAMES as FIM_NAMES

# Characters of one kind in a row that are tokenised together: some of llama.cpp's pre-tokenisers take a frame
# of the stack for each (Mistral's, DeepSeek's, GPT-4o's; 32 KB of one letter overflow it).
LONGEST_RUN = 2048
# Characters that are looked at at once, which keeps Python's lock.
_LOOKED_AT = 64 * 1024
# What a pre-tokeniser may take together; each looked for where it begins, so that looking is linear.
_RUNS = tuple(
    re.compile(f"(?<!{kind}){kind}{{{LONGEST_RUN},}}+")
    for kind in (r"[\s/]", r"(?:[^\w\s]|_)", r"[^\s.,!?…。，、।۔،]")  # noqa: RUF001
)


@dataclass(frozen=True, slots=True)
class SpecialToken:
    """A text that stands for one token.

    ``is_control``: it is for templates to write, as the end of a turn is. ``takes_left``: it swallows
    spaces in front of it. ``is_certain``: whatever surrounds it.
    """

    text: str
    is_control: bool
    takes_left: bool = False
    is_certain: bool = True


def added_tokens(added: Mapping[int, Any], end_ids: Container[int]) -> Iterator[SpecialToken]:
    """The special tokens of a Hugging Face tokenizer, from its ``added_tokens_decoder``; ``end_ids`` end an
    answer, which makes them control tokens whatever their tokenizer says."""
    for number, token in added.items():
        depends = getattr(token, "single_word", False) or getattr(token, "normalized", False)
        yield SpecialToken(
            token.content,
            is_control=token.special or number in end_ids,
            takes_left=getattr(token, "lstrip", False),
            is_certain=not depends,
        )


class SpecialTokens:
    """The special tokens of one vocabulary. ``longest`` bounds the characters of any token of it."""

    def __init__(self, tokens: Iterable[SpecialToken] = (), *, longest: int) -> None:
        known = {token.text: token for token in tokens if token.text}
        self.longest = max(1, longest, *map(len, known))
        # Some tokenizers have what marks a gap for plain text, but nobody's text is to have one.
        self.controls = frozenset(
            text for text, token in known.items() if token.is_control or text in FIM_NAMES
        )
        self._cuts = frozenset(text for text, token in known.items() if not token.takes_left)
        self._all = _any_of(text for text, token in known.items() if token.is_certain)
        # One of a single character cannot be taken apart.
        self._hidden = _any_of(text for text in self.controls if len(text) > 1)

    def places(self, text: str) -> Iterator[tuple[int, bool]]:
        """Where special tokens begin, and whether the text may be cut there: each half is then tokenised as
        in the whole."""
        for match in self._all.finditer(text):
            yield match.start(), match[0] in self._cuts

    def count_controls(self, texts: Iterable[str], most: int) -> int:
        """How many control tokens ``texts`` hold; stops counting beyond ``most``."""
        found = self._hidden.finditer("\0".join(texts))
        return sum(1 for _ in islice(found, most + 1))

    def hide(self, value: Any, mark: str) -> Any:
        """``value`` (JSON) with ``mark`` inside every control token in its texts.

        The mark takes a token's text apart: cut there, neither half is one.
        """
        if isinstance(value, str):
            return self._hide(value, mark)
        if isinstance(value, Mapping):
            return {self.hide(key, mark): self.hide(each, mark) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.hide(each, mark) for each in value]
        return value

    def _hide(self, text: str, mark: str) -> str:
        # Again and again, as one may hold another: "<<s>" and "<s>".
        while self._hidden.search(text):
            text = self._hidden.sub(lambda match: match[0][0] + mark + match[0][1:], text)
        return text


def unbroken_runs(text: str) -> list[int]:
    """Where to cut ``text`` so that no run of one kind of characters is longer than `LONGEST_RUN`."""
    cuts: set[int] = set()
    for start in range(0, len(text), _LOOKED_AT):
        part = text[start : start + _LOOKED_AT + LONGEST_RUN]
        for kind in _RUNS:
            for run in kind.finditer(part):
                cuts.update(range(start + run.start() + LONGEST_RUN, start + run.end(), LONGEST_RUN))
    return sorted(cuts)


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Matches the longest of ``texts`` at a place. Thousands of alternatives would be tried one by one, so it
    is made as a tree."""
    tree: dict[str, Any] = {}
    longest_first = sorted(texts, key=len, reverse=True)
    for text in longest_first:
        node = tree
        for char in text:
            node = node.setdefault(char, {})
        node[""] = {}
    if not tree:
        return re.compile(r"(?!)")
    try:
        return re.compile(_source(tree))
    except RecursionError:  # tokens of hundreds of spaces
        return re.compile("|".join(map(re.escape, longest_first)))


def _source(tree: dict[str, Any]) -> str:
    if "" in tree and len(tree) == 1:
        return ""
    ways = [re.escape(char) + _source(rest) for char, rest in tree.items() if char]
    joined = ways[0] if len(ways) == 1 and "" not in tree else f"(?:{'|'.join(ways)})"
    return joined + "?" if "" in tree else joined
