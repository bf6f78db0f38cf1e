"""Layouts of media: the tokens that a picture or a sound takes in a prompt.

Where embeddings stand, a prompt has *pseudo-ids*: negative numbers that follow from the medium's content. So
sequences are compared, and cached prefixes found, as if they were of tokens only.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

Offsets = npt.NDArray[np.int32]

# What JSON's readers keep exactly has 53 bits.
_ID_BYTES, _IDS = 6, 5


@dataclass(frozen=True, slots=True, eq=False)
class MediaChunk:
    """Embeddings that follow each other, a picture's or a tile's, with their pseudo-ids.

    ``positions`` is how far the chunk moves what comes after it. ``offsets`` are four rows, the place of each
    embedding in time, height and width from the chunk's beginning on (and a zero), of models that have such;
    None: one after the other. Embeddings that are not ``causal`` see each other, whatever their order, and
    are computed at once.
    """

    ids: tuple[int, ...]
    positions: int
    causal: bool = True
    offsets: Offsets | None = None

    @property
    def size(self) -> int:
        return len(self.ids)


Part = MediaChunk | tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class MediaLayout:
    """The parts of one medium in a prompt: chunks, and the tokens before, between and behind them."""

    parts: tuple[Part, ...]

    @property
    def token_ids(self) -> tuple[int, ...]:
        return tuple(
            chain.from_iterable(part.ids if isinstance(part, MediaChunk) else part for part in self.parts)
        )

    @property
    def chunks(self) -> list[MediaChunk]:
        return [part for part in self.parts if isinstance(part, MediaChunk)]

    @property
    def largest(self) -> int:
        """Embeddings in the largest chunk."""
        return max((chunk.size for chunk in self.chunks), default=0)


def pseudo_ids(key: str, index: int, count: int) -> tuple[int, ...]:
    """The ids of chunk number ``index`` of the medium ``key``. Any five in a row name it by 240 bits."""
    digest = hashlib.sha256(f"{key}/{index}".encode()).digest()
    words = [int.from_bytes(digest[at : at + _ID_BYTES]) for at in range(0, _ID_BYTES * _IDS, _ID_BYTES)]
    return tuple(-1 - words[place % _IDS] for place in range(count))
