"""The raw bytes of every token, found when first needed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any


def _byte_of_character() -> dict[str, int]:
    """The characters that stand for bytes in byte-level vocabularies (GPT-2's table)."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    table = {chr(byte): byte for byte in shown}
    return table | {chr(256 + index): byte for index, byte in enumerate(hidden)}


_BYTE_OF = _byte_of_character()


def byte_level(token: str) -> bytes:
    """GPT-2, Llama 3, Qwen: each character of a token stands for a byte."""
    try:
        return bytes(_BYTE_OF[char] for char in token)
    except KeyError:  # an added token, written plainly
        return token.encode("utf-8", "replace")


def sentence_piece(token: str) -> bytes:
    """Llama 2, Mistral, Gemma: "▁" is a space, and "<0x0A>" a byte."""
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    return token.replace("\u2581", " ").encode("utf-8", "replace")


class Vocabulary:
    """Token ids to bytes. Special tokens have none, unless ``keep_special``."""

    def __init__(
        self, tokenizer: Any, size: int, *, end_ids: Iterable[int] = (), keep_special: bool = False
    ) -> None:
        self.size = size
        self._end_ids = frozenset(end_ids)
        self._tokenizer = tokenizer
        self._pieces: dict[int, bytes] = {}
        self._special = frozenset() if keep_special else frozenset(tokenizer.all_special_ids)
        self._added: dict[int, str] = {
            token: added.content for token, added in getattr(tokenizer, "added_tokens_decoder", {}).items()
        }
        if not keep_special:
            self._special |= {
                token
                for token, added in getattr(tokenizer, "added_tokens_decoder", {}).items()
                if added.special
            }
        self._to_bytes = _decoder_of(tokenizer)

    def is_end(self, token: int) -> bool:
        """Whether ``token`` ends an answer."""
        return token in self._end_ids

    def piece(self, token: int) -> bytes:
        """The bytes that ``token`` adds to a text in progress."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._find(token)
        return piece

    def decode(self, tokens: Any) -> str:
        """The text of tokens; bytes that form no character become U+FFFD."""
        return b"".join(map(self.piece, tokens)).decode("utf-8", "replace")

    def _find(self, token: int) -> bytes:
        if token in self._special:
            return b""
        if token in self._added:
            return self._added[token].encode("utf-8", "replace")
        name = self._tokenizer.convert_ids_to_tokens(token)
        if name is None:  # padding of the embedding matrix
            return b""
        if self._to_bytes is not None:
            return self._to_bytes(name)
        return str(self._tokenizer.decode([token])).encode("utf-8", "replace")


def _decoder_of(tokenizer: Any) -> Callable[[str], bytes] | None:
    """How this vocabulary writes bytes; None if its tokens can only be decoded as text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    decoder = json.loads(backend.to_str()).get("decoder") or {}
    kinds = {part.get("type") for part in [decoder, *decoder.get("decoders", [])]}
    if "ByteLevel" in kinds:
        return byte_level
    if "ByteFallback" in kinds or "Metaspace" in kinds:
        return sentence_piece
    return None
