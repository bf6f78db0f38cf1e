"""The ability to make vectors and scores of whole texts, and the values that cross it.

An engine has it beside, or instead of, `Generates`: what its `EngineInfo.capabilities` name, "embeddings" or
"rerank", it can do; the rest it refuses with `UnsupportedFeature`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One vector for each input, in their order, each of length 1; and how many tokens each input had."""

    vectors: Vectors
    prompt_tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """A query and a document, whose relevance to it is asked for."""

    query: str
    document: str


@dataclass(frozen=True, slots=True)
class Scores:
    """One raw score (a logit, higher is more relevant) for each pair, in their order; and how many tokens
    each pair had."""

    scores: tuple[float, ...]
    prompt_tokens: tuple[int, ...]


class Embeds(Protocol):
    """The ability to pool whole texts into vectors or scores. Called on the event loop's thread.

    Inputs of one call, and of several, are computed together where the engine can. Cancelling a call drops
    its inputs before the engine's next step. Raises `EngineError` when the engine failed or is closed, also
    for a vector with a number in it that is none (NaN): wrong vectors are never given.
    """

    async def tokenize(
        self, text: str, *, add_special: bool = True, most: int | None = None
    ) -> tuple[int, ...]:
        """Token ids of ``text``; ``add_special`` puts in front and behind what the model wants there.

        With ``most`` a longer text is cut at its end, so that with its special tokens it has so many.
        """
        ...

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        """Text of ``token_ids``; bytes that form no character become U+FFFD."""
        ...

    def labels(self, token_ids: Sequence[int]) -> list[bytes]:
        """As `engines.base.Encodes.labels`."""
        ...

    async def embed(self, inputs: Sequence[Sequence[int]], *, request_id: str = "") -> Embeddings:
        """Vectors of inputs, each the token ids of a text, special ones included.

        Raises `RequestError` as `engines.limits.check_inputs` does.
        """
        ...

    async def score(self, pairs: Sequence[Pair], *, most: int | None = None, request_id: str = "") -> Scores:
        """Scores of pairs, put together in the way of the model.

        With ``most`` documents are cut at their end, so that no pair has more tokens. Raises
        `ContextLengthExceeded` with the parameter ``documents.N`` for the pair that is too long.
        """
        ...
