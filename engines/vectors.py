"""Vectors of length 1, and shorter ones made of them."""

from __future__ import annotations

import numpy as np

from engines.base import Vectors


def shorten(vectors: Vectors, dimensions: int) -> Vectors:
    """The first ``dimensions`` numbers of each vector, made vectors of length 1 again."""
    return normalise(vectors[:, :dimensions])


def normalise(vectors: Vectors) -> Vectors:
    """Vectors of length 1; one of length 0 stays as it is."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)
