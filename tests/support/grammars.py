"""A small vocabulary for grammars, without a model: every byte, and some longer tokens."""

from __future__ import annotations

from functools import cache
from typing import Any

from engines.text.grammar import LazyTokenizer

_LONGER = (
    '{"', '"}', '":', '": "', '": ', '", "', ", ", "[]", "{}", "[[", "]]", '""', "true", "false", "null",
    "the", "ing", " a", "10", "00", "123", "-1", "0.5", "2024-", "T12:", "é", "日本", "\\n", "\\u00", "abc",
    "  ",
)  # fmt: skip
END = 256 + len(_LONGER)
OTHER_END = END + 1
N_VOCAB = END + 2


class _Bytes:
    """What llguidance wants to know of a tokenizer."""

    eos_token_id = END
    bos_token_id = None
    tokens = (*(bytes([i]) for i in range(256)), *(text.encode() for text in _LONGER), b"<end>", b"<other>")
    special_token_ids = (END, OTHER_END)

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


@cache
def byte_vocabulary() -> LazyTokenizer:
    """The vocabulary: `N_VOCAB` tokens, two of which end an answer."""

    def make() -> Any:
        from llguidance import LLTokenizer, TokenizerWrapper

        return LLTokenizer(TokenizerWrapper(_Bytes()), n_vocab=N_VOCAB, eos_token=[END, OTHER_END])

    return LazyTokenizer(make)


def text_of(tokens: list[int]) -> str:
    return byte_vocabulary().lltokenizer().decode_str(tokens)
