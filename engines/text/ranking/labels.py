"""Labels of a model that sorts texts: one that ranks has a single score, or a yes and a no."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from engines.base import Vectors
from engines.errors import CannotLoad

# A probability that is less counts as this.
_LEAST = 1e-30
_ANSWERS = ["yes", "no"]


def check_labels(model: str, labels: Sequence[str]) -> None:
    """Raise `CannotLoad` if a model with these ``labels`` gives other numbers."""
    if len(labels) > 1 and sorted(labels) != sorted(_ANSWERS):
        told = ", ".join(labels[:4])
        raise CannotLoad(f"{model} tells {len(labels)} kinds of texts apart ({told}): it is no reranker")


def scores_of(labels: Sequence[str], rows: Vectors) -> tuple[float, ...]:
    """The logits of the ``rows`` that a model gave, each of its ``labels``."""
    if len(labels) < 2:
        return tuple(float(row[0]) for row in rows)
    yes, no = (labels.index(answer) for answer in _ANSWERS)
    if (rows >= 0).all() and np.allclose(rows.sum(axis=1), 1.0, atol=1e-3):  # probabilities
        return tuple(_log(row[yes]) - _log(row[no]) for row in rows)
    return tuple(float(row[yes] - row[no]) for row in rows)


def _log(probability: float) -> float:
    return math.log(max(float(probability), _LEAST))
