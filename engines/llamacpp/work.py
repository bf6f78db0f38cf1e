"""Work: the part of a step that is one sequence's."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

from engines.llamacpp.sequence import LlamaSequence


@dataclass(slots=True)
class Work:
    """``count`` pending tokens of ``sequence`` to compute in this step, and a ``draft`` of what follows."""

    sequence: LlamaSequence
    count: int
    draft: Seq[int] = ()

    @property
    def completes(self) -> bool:
        """Whether the step leaves no token pending, so that the next one can be drawn."""
        return self.count == self.sequence.pending

    @property
    def scores(self) -> bool:
        """Whether the step tells the log probabilities of the prompt's tokens that come next."""
        return self.sequence.scores

    @property
    def size(self) -> int:
        """Tokens to compute."""
        return self.count + len(self.draft)

    @property
    def is_of_media(self) -> bool:
        """Whether the tokens stand for embeddings, which no pass computes together with tokens."""
        return self.sequence.run.span is not None

    @property
    def outputs(self) -> int:
        """How many of the tokens, from the last on, the logits are wanted of."""
        if self.scores:
            return self.count
        return 1 + len(self.draft) if self.completes else 0
