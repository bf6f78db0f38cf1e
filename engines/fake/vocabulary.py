"""The fake engine's tokens."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from engines.errors import RequestError


class WordVocabulary:
    """One token a byte, and the words seen so far under their hash: the same in every fake engine, so that
    one can go on with what another began."""

    size = 257 + 2**48

    def __init__(self) -> None:
        self._pieces = {0: b""} | {1 + i: bytes([i]) for i in range(256)}
        self._ids: dict[bytes, int] = {}

    def check(self, tokens: Sequence[int], *, param: str = "prompt") -> None:
        """Raise `RequestError` unless every token is known."""
        if unknown := set(tokens) - self._pieces.keys():
            raise RequestError(f"unknown token ids: {sorted(unknown)[:8]}", param=param)

    def piece(self, token: int) -> bytes:
        return self._pieces[token]

    def encode(self, text: str) -> tuple[int, ...]:
        """ASCII words with their leading space are one token each; anything else is one a byte."""
        tokens: list[int] = []
        for word in re.findall(r"\s?[A-Za-z0-9_]+|\s|[^\sA-Za-z0-9_]", text):
            raw = word.encode("utf-8", "replace")
            tokens.extend([self._word(raw)] if word.isascii() else [1 + byte for byte in raw])
        return tuple(tokens)

    def _word(self, raw: bytes) -> int:
        token = self._ids.get(raw)
        if token is None:
            token = self._ids[raw] = 257 + int.from_bytes(hashlib.blake2b(raw, digest_size=6).digest())
            self._pieces[token] = raw
        return token
