"""Choices of the next token where a grammar meets what else a request says: one is always left."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engines.errors import RequestError

Bools = npt.NDArray[np.bool_]


def combine(
    allowed: Bools,
    ends: npt.NDArray[np.int32],
    *,
    forbidden: Bools | None = None,
    banned: npt.NDArray[np.int32] | None = None,
) -> Bools:
    """The tokens that may be drawn of those that a grammar has ``allowed``.

    ``ends`` end an answer; one that is complete ends, whatever is ``forbidden`` (all that
    ``allowed_token_ids`` does not name) or ``banned`` (ends, by ``min_tokens`` and ``ignore_eos``). Raises
    `RequestError` if ``forbidden`` leaves nothing to go on with.
    """
    choices = allowed
    if forbidden is not None:
        choices = allowed & ~forbidden
        if not choices.any():
            if not _without(allowed, ends).any():
                return allowed
            raise RequestError(
                "allowed_token_ids has no token that the structure of the answer allows next",
                param="allowed_token_ids",
            )
    if banned is not None:
        others = _without(choices, banned)
        if others.any():
            return others
    return choices


def _without(tokens: Bools, some: npt.NDArray[np.int32]) -> Bools:
    left = tokens.copy()
    left[some] = False
    return left
