"""N-gram drafts: what followed the last tokens where they stood before, in the prompt or in the answer.

Where an answer copies, this guesses it without a second model. A draft is computed in one step with the
token before it; then token after token is drawn as ever, and those that the draft foretold need no step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

GRAM = 3
# Entries of the largest index, four bytes each; of a longer text it knows what came last.
MOST_ENTRIES = 2**16
# How far back a match is followed when it is found.
LONGEST_SEARCH = 16
# Tokens worth drafting at all: what comes behind them is hardly ever reached.
LONGEST_DRAFT = 63
# A token more costs, on CPUs, up to two thirds of a step of one token (SmolLM2-135M in Q4_1), and a third
# where ggml has its fast kernels (Q4_0): of what is drafted, more than that must come true.
LEAST_CHANCE = 0.8
# Those kernels take tokens in fours: a step of four is hardly dearer than one of three.
TOGETHER = 4
# What a sequence begins with, by the length of the match: predictions, and how many of them came true. The
# groups are matches of 0, 1, less than 4, 8, 16, 32 tokens, and more.
TRIES = (4.0, 4.0, 4.0, 4.0, 4.0, 8.0, 16.0)
HITS = (1.2, 2.0, 1.8, 2.4, 3.2, 7.2, 15.4)
# Predictions of a group that count: what was seen before them fades.
MEMORY = 32.0


class DraftCounts:
    """Tokens that were drafted since the load, and those of them that came true."""

    def __init__(self) -> None:
        self.drafted = 0
        self.accepted = 0

    def as_metrics(self) -> Mapping[str, float]:
        """Under the same names as vLLM's."""
        return {"draft_tokens_total": self.drafted, "accepted_tokens_total": self.accepted}


class NgramDrafter:
    """The drafts for one sequence, whose tokens only ever grow.

    It follows one place where the sequence's last tokens stood before, and keeps count of how often the next
    token was the one expected, drafted or not: it drafts only what is likely. The index is a hash table
    without chains, as in LZ4: it says where an n-gram ended last, and what is found there is compared.

    Everything depends on the tokens alone, so that a sequence that runs alone repeats itself.
    """

    __slots__ = ("_ends", "_hits", "_indexed", "_matched", "_seen", "_source", "_tries")

    def __init__(self, length: int) -> None:
        """``length`` is the most tokens that the sequence may come to."""
        self._ends = np.zeros(1 << min(length, MOST_ENTRIES - 1).bit_length(), dtype=np.int32)
        self._indexed = GRAM  # n-grams that end before here are in the index
        self._seen = 0
        self._source = 0  # where the token is that is expected next; 0: nowhere
        self._matched = 0  # so many tokens before it are the last ones
        self._tries, self._hits = list(TRIES), list(HITS)

    def draft(self, tokens: list[int], most: int) -> list[int]:
        """At most ``most`` tokens that are likely to follow ``tokens``."""
        for token in tokens[self._seen :]:
            if self._source:
                self._compare(token, tokens[self._source])
        self._index(tokens)
        if self._matched < GRAM:
            self._search(tokens)
        self._seen = len(tokens)
        count = min(self._worthwhile(), most)
        if not count:
            return []
        copied = tokens[self._source : self._source + count]
        # Up to its own end, the text repeats itself from there.
        return (copied * (count // len(copied) + 1))[:count]

    def _compare(self, token: int, expected: int) -> None:
        """Learn from the next token whether the match went on, and follow it if it did."""
        came_true = token == expected
        group = _group(self._matched)
        self._tries[group] += 1.0 - self._tries[group] / MEMORY
        self._hits[group] += came_true - self._hits[group] / MEMORY
        if came_true or self._matched:
            self._source += 1  # where one token was replaced, the text may go on as it did
        else:
            self._source = 0
        self._matched = self._matched + 1 if came_true else 0

    def _worthwhile(self) -> int:
        """How many of the next tokens are likely enough to come true, all of them."""
        chance, count = 1.0, 0
        if self._source:
            while count < LONGEST_DRAFT:
                group = _group(self._matched + count)
                chance *= self._hits[group] / self._tries[group]
                if chance < LEAST_CHANCE:
                    break
                count += 1
        return count and -(-(count + 1) // TOGETHER) * TOGETHER - 1

    def _search(self, tokens: list[int]) -> None:
        """Begin to follow where the last n-gram stood before."""
        if len(tokens) < GRAM:
            return
        end = int(self._ends[self._place(*tokens[-GRAM:])])
        matched = 0
        while matched < min(end, LONGEST_SEARCH) and tokens[end - 1 - matched] == tokens[-1 - matched]:
            matched += 1
        if matched >= GRAM:
            self._source, self._matched = end, matched

    def _index(self, tokens: list[int]) -> None:
        """Take in the n-grams that are followed by something."""
        start, end = self._indexed, len(tokens)
        if start >= end:
            return
        ids = np.array(tokens[start - GRAM : end - 1], dtype=np.int64)
        self._ends[self._place(ids[:-2], ids[1:-1], ids[2:])] = np.arange(start, end, dtype=np.int32)
        self._indexed = end

    def _place(self, first: Any, second: Any, third: Any) -> Any:
        """Where an n-gram, or an array of them, is in the index."""
        return (first * 73856093 ^ second * 19349663 ^ third * 83492791) & (len(self._ends) - 1)


def _group(matched: int) -> int:
    return min(matched.bit_length(), len(TRIES) - 1)
