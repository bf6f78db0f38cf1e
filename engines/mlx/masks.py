"""Masks of the sequences in a batch, filled while a forward pass runs.

mlx-lm computes a step ahead: it asks for the next token of a sequence before it tells of the last one. So a
mask is told of each token here, and not when the token is delivered.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import cast

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from engines.errors import EngineError
from engines.mlx.sequence import MlxSequence
from engines.text import grammar
from engines.text.answers.output import Output, TokenTexts, output_of
from engines.text.grammar import TokenMask

Bools = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.int32]


class SequenceMask:
    """The mask of one sequence while it is in the batch; its sampler draws through `draw`.

    ``error`` says why the answer cannot go on; whatever is drawn then is no part of it.
    """

    def __init__(
        self,
        sequence: MlxSequence,
        mask: TokenMask,
        vocabulary: TokenTexts,
        ends: frozenset[int],
        sampler: Callable[[mx.array], mx.array],
        together: StepMasks,
    ) -> None:
        """``ends`` end the answer; ``together`` are the masks of the batch."""
        self.error: EngineError | None = None
        self._together = together
        self._mask = mask
        self._ends = ends
        self._has_ended = False
        self._sampler = sampler
        self._drawn: mx.array | None = None
        self._reasoning = _reasoning(sequence, vocabulary)

    def draw(self, logprobs: mx.array) -> mx.array:
        """The sampler: keeps what it draws, which is known only once the step is computed."""
        self._drawn = self._sampler(logprobs)
        return self._drawn

    @property
    def has_drawn(self) -> bool:
        """Whether a token was drawn that the mask has not been told of."""
        return self._drawn is not None

    def take(self) -> None:
        """Tell the mask of the token that was drawn, once that is known."""
        assert self._drawn is not None
        token, self._drawn = cast(int, self._drawn.item()), None
        if self._has_ended or self.error is not None:
            return
        if token in self._ends:
            self._has_ended = True
        elif self._reasoning is not None:
            self._reasoning.push(token)
            if not self._reasoning.in_reasoning:
                self._reasoning = None
        else:
            try:
                self._mask.consume(token)
            except EngineError as error:
                self.error = error

    @property
    def awake(self) -> TokenMask | None:
        """The mask, if it says anything of the next token."""
        asleep = self._has_ended or self._reasoning is not None or self.error is not None
        return None if asleep else self._mask

    def fill(self, logits: mx.array) -> None:
        """Begin to find out what may come next, while ``logits`` are computed."""
        self._together.fill(self, logits)

    def choices(self, n_vocab: int, ends: Ids, forbidden: Bools | None, banned: Ids | None) -> Bools | None:
        """The tokens that may be drawn, as `grammar.combine` has it; None: the mask says nothing of them."""
        if (mask := self.awake) is None:
            return None
        try:
            return grammar.combine(mask.allowed(n_vocab), ends, forbidden=forbidden, banned=banned)
        except EngineError as error:
            self.error = error
            return None


def _reasoning(sequence: MlxSequence, vocabulary: TokenTexts) -> Output | None:
    """What tells, ahead of the sequence's own output, when the reasoning ends that it is in."""
    if not sequence.in_reasoning:
        return None
    request = sequence.request
    output = output_of(replace(request, stop=(), logprobs=None), vocabulary)
    for token in sequence.tokens[len(request.prompt.token_ids) :]:
        output.push(token)
    return output


class StepMasks:
    """The masks of all sequences in the batch, by uid: those that decode are filled together."""

    def __init__(self) -> None:
        self._masks: dict[Hashable, SequenceMask] = {}
        self._are_due = False

    def add(self, uid: Hashable, mask: SequenceMask) -> None:
        self._masks[uid] = mask

    def remove(self, uid: Hashable) -> None:
        self._masks.pop(uid, None)

    def clear(self) -> None:
        self._masks.clear()

    def error(self, uid: Hashable) -> EngineError | None:
        """Why the answer of a sequence cannot go on, if so."""
        mask = self._masks.get(uid)
        return None if mask is None else mask.error

    def begin_step(self) -> None:
        self._are_due = True

    def fill(self, mask: SequenceMask, logits: mx.array) -> None:
        """Begin to fill ``mask``, and with the first of a step those of all sequences that decode, while
        ``logits`` are computed."""
        mx.async_eval(logits)  # type: ignore[no-untyped-call]
        due = [mask]
        if mask.has_drawn and self._are_due:
            self._are_due = False
            # Others began in this step: what they drew is behind the forward pass.
            due = [each for each in self._masks.values() if each.has_drawn]
            for each in due:
                each.take()
        grammar.start([awake for each in due if (awake := each.awake) is not None])
