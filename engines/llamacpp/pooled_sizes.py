"""Sizes of a pooled context: how long texts may be, how much is computed at once, and the memory it takes."""

from __future__ import annotations

from dataclasses import dataclass

from engines.models.purpose import ENCODERS, Pooling
from engines.sizing import WORK_SPACE, auto_context

# Texts of one pass: llama.cpp has room for 256 sequences.
MOST_TEXTS = 128
# Tokens of the texts that are computed together on a CPU, where more at once are no faster.
CPU_BATCH = 256
# Tokens that a decoder computes at once. It computes the logits of each, which nobody wants.
STEP = 512
# The longest context that is taken unasked for decoders that must see a text in one step.
LONGEST_STEP = 2048
# Of a model that is not loaded yet.
_VOCABULARY = 2**17


@dataclass(frozen=True, slots=True)
class PooledSize:
    """Tokens: of the longest text, of shorter ones that go together, and of what is computed at once.

    An encoder sees a text as a whole, and means are of one step, so for these ``step`` is a whole text.
    """

    tokens: int
    batch: int
    step: int
    pooling: Pooling
    is_encoder: bool

    def memory(self, kv_bytes_per_token: int, vocabulary: int = _VOCABULARY) -> int:
        """Bytes beside the weights: keys and values, twice the table of which token sees which, logits."""
        logits = 4 * vocabulary * (MOST_TEXTS + (0 if self.is_encoder else self.step))
        kept = 0 if self.is_encoder else self.tokens * kv_bytes_per_token
        return WORK_SPACE + kept + 2 * 4 * self.tokens * self.step + logits


def pooled_size(
    asked: int | None, trained: int, pooling: Pooling, architecture: str, *, offload: bool
) -> PooledSize:
    """The size for a context that was ``asked`` for, of a model that was ``trained`` for so many tokens."""
    is_encoder = architecture in ENCODERS
    # The state of the last token has seen the others, in whatever steps.
    in_steps = pooling == "last" and not is_encoder
    unasked = auto_context(trained)
    if not is_encoder and not in_steps:
        unasked = min(unasked, LONGEST_STEP)
    # Positions beyond what an encoder was trained for are not there at all.
    tokens = min(asked or unasked, trained or auto_context(None))
    return PooledSize(
        tokens=tokens,
        batch=tokens if offload else min(tokens, CPU_BATCH),
        step=min(tokens, STEP) if in_steps else tokens,
        pooling=pooling,
        is_encoder=is_encoder,
    )
