"""Bytes of a token by the text that its vocabulary writes for it, for Hugging Face's fast tokenizers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def decoder_kinds(backend: Any) -> frozenset[str]:
    """The kinds of decoders that ``backend`` (a ``tokenizers.Tokenizer``) is put together from."""
    return frozenset(_kinds(json.loads(backend.to_str()).get("decoder") or {}))


def rule(kinds: Collection[str]) -> Callable[[str], bytes] | None:
    """How a vocabulary with decoders of these ``kinds`` writes bytes; None if only its decoder can tell."""
    if "ByteLevel" in kinds:
        return byte_level
    if "ByteFallback" in kinds or "Metaspace" in kinds:
        return sentence_piece
    return None


def byte_level(token: str) -> bytes:
    """GPT-2, Llama 3, Qwen: each character of a token stands for a byte."""
    try:
        return bytes(_BYTE_OF[char] for char in token)
    except KeyError:  # an added token, written plainly
        return token.encode("utf-8", "replace")


def sentence_piece(token: str) -> bytes:
    """Llama 2, Mistral, Gemma: U+2581 is a space, and ``<0x0A>`` a byte outside the vocabulary."""
    if match := _BYTE.fullmatch(token):
        return bytes([int(match[1], 16)])
    return token.replace("\u2581", " ").encode("utf-8", "replace")


def _kinds(decoder: Mapping[str, Any]) -> set[str]:
    kinds = {str(decoder.get("type"))}
    for part in decoder.get("decoders", ()):
        kinds |= _kinds(part)
    return kinds


def _byte_of_character() -> dict[str, int]:
    """The inverse of GPT-2's ``bytes_to_unicode``: printable bytes stand for themselves, the others for the
    characters from 256 on, in order."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + n): byte for n, byte in enumerate(hidden)}


_BYTE_OF = _byte_of_character()
