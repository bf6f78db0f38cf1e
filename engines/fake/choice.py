"""The fake engine's choice of tokens: which of those that it would say may be said."""

from __future__ import annotations

from engines.base import Sampling
from engines.fake.vocabulary import WordVocabulary
from engines.text.bad_words import token_runs


def allowed_of(tokens: tuple[int, ...], sampling: Sampling, vocabulary: WordVocabulary) -> tuple[int, ...]:
    """Those of ``tokens`` that may be said; what may be said at all, if there are none."""
    allowed = sampling.allowed_token_ids
    bad = {run[0] for run in token_runs(sampling.bad_words, vocabulary)}
    vocabulary.check(allowed or (), param="allowed_token_ids")
    for choice in (tuple(t for t in tokens if allowed is None or t in allowed), allowed or ()):
        if kept := tuple(t for t in choice if t not in bad):
            return kept
    return allowed or tokens
