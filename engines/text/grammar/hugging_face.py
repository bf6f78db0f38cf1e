"""Tokens of a Hugging Face tokenizer for grammars."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from engines.errors import UnsupportedFeature
from engines.text.grammar.vocabulary import LazyTokenizer


def lazy_tokenizer(backend: Any, n_vocab: int, end_ids: Iterable[int]) -> LazyTokenizer:
    """A grammar vocabulary of ``backend``, a `tokenizers.Tokenizer` without truncation and padding; the model
    has logits for ``n_vocab`` tokens, of which ``end_ids`` end an answer."""
    ends = sorted(end_ids)

    def make() -> Any:
        from llguidance import LLTokenizer

        size = max(n_vocab, backend.get_vocab_size(with_added_tokens=True))
        try:
            return LLTokenizer(backend.to_str(), n_vocab=size, eos_token=ends)
        except Exception as error:  # it raises anything
            raise UnsupportedFeature(
                f"this model's tokenizer is of a kind that structured output cannot work with: {error}",
                param="response_format",
            ) from error

    return LazyTokenizer(make)
