"""The fake engine's vectors and scores: alike where texts have words in common."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

import numpy as np

from engines.base import Embeddings, EngineInfo, Pair, Scores, Vectors
from engines.errors import ContextLengthExceeded, EngineError
from engines.fake.vocabulary import WordVocabulary
from engines.limits import check_inputs
from engines.vectors import normalise

LENGTH = 16
# A score for texts that are the same.
_MOST = 8.0


class FakeEmbeds:
    """The fake engine's ability to embed (`engines.base.Embeds`); its attributes are the engine's."""

    _info: EngineInfo
    _vocabulary: WordVocabulary
    _delay: float
    _running: int
    _prompt_tokens: int
    _closed: bool

    async def embed(self, inputs: Sequence[Sequence[int]], *, request_id: str = "") -> Embeddings:
        check_inputs(inputs, context_length=self._info.context_length, n_vocab=WordVocabulary.n_vocab)
        for index, token_ids in enumerate(inputs):
            self._vocabulary.check(token_ids, param=f"input.{index}")
        counts = await self._pool([len(each) for each in inputs])
        return Embeddings(vectors_of(inputs), counts)

    async def score(self, pairs: Sequence[Pair], *, request_id: str = "") -> Scores:
        scores, counts = scores_of(pairs, self._vocabulary, self._info.context_length)
        return Scores(scores, await self._pool(counts))

    async def _pool(self, counts: Sequence[int]) -> tuple[int, ...]:
        """Take the time that inputs of so many tokens take."""
        if self._closed:
            raise EngineError("the engine is closed")
        self._running += 1
        try:
            await asyncio.sleep(self._delay)
            self._fail_if_told()
        finally:
            self._running -= 1
        self._prompt_tokens += sum(counts)
        return tuple(counts)

    def _fail_if_told(self) -> None:
        raise NotImplementedError


def vectors_of(inputs: Sequence[Sequence[int]]) -> Vectors:
    """One vector for each list of token ids: the direction of the sum of its tokens' own."""
    sums = [sum(map(_direction, tokens), np.zeros(LENGTH, dtype=np.float32)) for tokens in inputs]
    return normalise(np.array(sums, dtype=np.float32).reshape(len(inputs), LENGTH))


def scores_of(
    pairs: Sequence[Pair], vocabulary: WordVocabulary, context_length: int
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """How much the texts of each pair are alike, and how many tokens they have together."""
    queries = [vocabulary.tokenize(pair.query) for pair in pairs]
    documents = [vocabulary.tokenize(pair.document) for pair in pairs]
    counts = tuple(len(query) + len(document) for query, document in zip(queries, documents, strict=True))
    for index, count in enumerate(counts):
        if count > context_length:
            raise ContextLengthExceeded(context_length, count, prompt=f"documents.{index}")
    alike = (vectors_of(queries) * vectors_of(documents)).sum(axis=1)
    return tuple(_MOST * float(each) for each in alike), counts


def _direction(token: int) -> Vectors:
    digest = hashlib.blake2b(token.to_bytes(8), digest_size=2 * LENGTH).digest()
    return np.frombuffer(digest, dtype="<i2").astype(np.float32) / np.float32(2**15)
