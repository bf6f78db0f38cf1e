"""The fake engine's tokens."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from engines.errors import RequestError
from engines.text.tokens.fim import FimTokens
from engines.text.tokens.special_tokens import SpecialTokens

_LONGEST_WORD = 100
# The marks of a gap, and their ids behind all others.
_MARKS = (b"<prefix>", b"<suffix>", b"<middle>")
_FIRST_MARK = 257 + 2**48
_FIM_IDS = (_FIRST_MARK, _FIRST_MARK + 1, _FIRST_MARK + 2)
_WORDS = re.compile(rf"\s?[A-Za-z0-9_]{{1,{_LONGEST_WORD}}}|\s|[^\sA-Za-z0-9_]")


class WordVocabulary:
    """One token a byte, and the words seen so far under their hash: the same in every fake engine, so that
    one can go on with what another began."""

    n_vocab = _FIRST_MARK + len(_MARKS)
    special_tokens = SpecialTokens(longest=1 + _LONGEST_WORD)
    splits_runs = False
    fim = FimTokens(*_FIM_IDS, ends=_FIM_IDS[1:])

    def __init__(self) -> None:
        self._pieces = {0: b""} | {1 + i: bytes([i]) for i in range(256)}
        self._pieces |= dict.fromkeys(_FIM_IDS, b"")
        self._ids: dict[bytes, int] = {}

    def check(self, tokens: Sequence[int], *, param: str = "prompt") -> None:
        """Raise `RequestError` unless every token is known."""
        if unknown := set(tokens) - self._pieces.keys():
            raise RequestError(f"unknown token ids: {sorted(unknown)[:8]}", param=param)

    def piece(self, token: int) -> bytes:
        return self._pieces[token]

    def label(self, token: int) -> bytes:
        return _MARKS[token - _FIRST_MARK] if token in _FIM_IDS else self._pieces[token]

    def tokenize(self, text: str, *, add_special: bool = True) -> tuple[int, ...]:
        """ASCII words with their leading space are one token each; anything else is one a byte."""
        tokens: list[int] = []
        for word in _WORDS.findall(text):
            raw = word.encode("utf-8", "replace")
            tokens.extend([self._word(raw)] if word.isascii() else [1 + byte for byte in raw])
        return tuple(tokens)

    def detokenize(self, token_ids: Sequence[int]) -> str:
        self.check(token_ids)
        return b"".join(map(self.piece, token_ids)).decode("utf-8", "replace")

    def _word(self, raw: bytes) -> int:
        token = self._ids.get(raw)
        if token is None:
            token = self._ids[raw] = 257 + int.from_bytes(hashlib.blake2b(raw, digest_size=6).digest())
            self._pieces[token] = raw
        return token
