"""Tokens of a llama.cpp vocabulary for grammars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llguidance import LLTokenizer


def read_lltokenizer(vocab: Any, n_vocab: int, end_ids: Sequence[int]) -> LLTokenizer:
    """A tokenizer of llguidance's, which keeps the pointer ``vocab``: it must not outlive the model.

    A second for a large vocabulary.
    """
    from llguidance.llamacpp import lltokenizer_from_vocab

    return lltokenizer_from_vocab(vocab, n_vocab=n_vocab, eos_token=list(end_ids))
