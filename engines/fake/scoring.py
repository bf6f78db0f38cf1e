"""The fake engine's log probabilities: it is equally sure of all that it says or is told."""

from __future__ import annotations

from collections.abc import Iterator

from engines.base import Candidate, GenerationRequest, TokenLogprob
from engines.fake.vocabulary import WordVocabulary


def token_logprob(token: int, most: int | None, vocabulary: WordVocabulary) -> TokenLogprob | None:
    """Of ``token``, with the ``most`` likely ones; None if nobody wants it."""
    return None if most is None else _logprob(token, most, vocabulary)


def prompt_logprobs(request: GenerationRequest, vocabulary: WordVocabulary) -> Iterator[TokenLogprob]:
    """Those of the prompt, if they are wanted."""
    if (most := request.prompt_logprobs) is None:
        return
    first, *others = request.prompt.token_ids
    yield TokenLogprob(Candidate(first, vocabulary.label(first), 0.0))
    yield from (_logprob(token, most, vocabulary) for token in others)


def _logprob(token: int, most: int, vocabulary: WordVocabulary) -> TokenLogprob:
    others = [i for i in range(1, most + 1) if i != token][: max(0, most - 1)]
    chosen = Candidate(token, vocabulary.label(token), -0.1)
    top = [chosen, *(Candidate(i, vocabulary.piece(i), -3.0 - n) for n, i in enumerate(others))]
    return TokenLogprob(chosen, tuple(top[:most]), rank=1)
