"""The fake engine's choice of tokens: which of those that it would say, in what order."""

from __future__ import annotations

import zlib

from engines.base import Sampling
from engines.fake.vocabulary import WordVocabulary
from engines.text.tokens.bad_words import token_runs


def source_of(tokens: tuple[int, ...], sampling: Sampling, vocabulary: WordVocabulary) -> tuple[int, ...]:
    """The tokens that may be said of ``tokens``, started at a place the seed decides."""
    tokens = _allowed(tokens, sampling, vocabulary)
    if sampling.is_greedy or sampling.seed is None:
        return tokens
    start = zlib.crc32(str(sampling.seed).encode()) % len(tokens)
    return tokens[start:] + tokens[:start]


def _allowed(tokens: tuple[int, ...], sampling: Sampling, vocabulary: WordVocabulary) -> tuple[int, ...]:
    """Those of ``tokens`` that may be said; what may be said at all, if there are none."""
    allowed = sampling.allowed_token_ids
    bad = {run[0] for run in token_runs(sampling.bad_words, vocabulary)}
    vocabulary.check(allowed or (), param="allowed_token_ids")
    for choice in (tuple(t for t in tokens if allowed is None or t in allowed), allowed or ()):
        if kept := tuple(t for t in choice if t not in bad):
            return kept
    return allowed or tokens
