"""Special tokens of a llama.cpp vocabulary, and those for filling in the middle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llama_cpp.llama_cpp as lib

from engines.text.tokens.fim import FimTokens, find_fim, made
from engines.text.tokens.special_tokens import SpecialToken, SpecialTokens

# llama.cpp looks for these in a text before all else, the first two only if told to.
_CONTROL = lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN
_SPECIAL = _CONTROL | lib.LLAMA_TOKEN_ATTR_USER_DEFINED


def read_special_tokens(vocab: Any, n_vocab: int) -> SpecialTokens:
    """Tens of milliseconds for a large vocabulary."""
    attributes, text_of = lib.llama_vocab_get_attr, lib.llama_vocab_get_text
    found: list[SpecialToken] = []
    longest = 0
    for token in range(n_vocab):
        text = text_of(vocab, token)
        longest = max(longest, len(text))  # bytes, of which no character has less than one
        kind = attributes(vocab, token)
        if kind & _SPECIAL:
            found.append(
                SpecialToken(
                    text.decode("utf-8", "replace"),
                    is_control=bool(kind & _CONTROL),
                    takes_left=bool(kind & lib.LLAMA_TOKEN_ATTR_LSTRIP),
                )
            )
    return SpecialTokens(found, longest=longest)


def read_fim(vocab: Any, tokenize: Callable[[str], tuple[int, ...]]) -> FimTokens | None:
    """The tokens for filling in the middle: those of the file, or those that have a name for it.

    ``tokenize`` knows special tokens.
    """

    def find(name: str) -> int | None:
        found = tokenize(name)
        named = len(found) == 1 and lib.llama_vocab_get_text(vocab, found[0]) == name.encode()
        return found[0] if named else None

    of_file = (lib.llama_vocab_fim_pre, lib.llama_vocab_fim_suf, lib.llama_vocab_fim_mid)
    prefix, suffix, middle = (int(read(vocab)) for read in of_file)
    if min(prefix, suffix, middle) < 0:
        return find_fim(find)
    return made(prefix, suffix, middle, find)
