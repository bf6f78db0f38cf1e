"""A Hugging Face tokenizer as raw bytes: what each token id adds to the text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from engines.errors import ModelLoadError


class MlxVocabulary:
    """Token ids to bytes and text to token ids. Immutable and safe to use from several threads."""

    def __init__(self, tokenizer: Any, end_ids: Iterable[int], n_vocab: int) -> None:
        """``tokenizer`` is a fast one of transformers; ``n_vocab`` how many ids the model knows.

        Raises `ModelLoadError` for other kinds of tokenizer.
        """
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ModelLoadError(
                "the model's tokenizer has no fast version: add its tokenizer.json to the folder"
            )
        backend.no_truncation()
        backend.no_padding()
        self.n_vocab = n_vocab
        self.end_ids = tuple(sorted({i for i in end_ids if 0 <= i < n_vocab}))
        self.bos_text: str = tokenizer.bos_token or ""
        self.eos_text: str = tokenizer.eos_token or ""
        self.chat_template = _template(tokenizer.chat_template)
        self._backend = backend
        decoder = json.loads(backend.to_str())["decoder"] or {}
        kinds = _decoder_kinds(decoder)
        self._strips_space = "Strip" in kinds or "Metaspace" in kinds
        self._labels = _labels(backend, tokenizer.added_tokens_decoder, "ByteLevel" in kinds, n_vocab)
        self._silent = frozenset(i for i, t in tokenizer.added_tokens_decoder.items() if t.special)

    def is_end(self, token: int) -> bool:
        """Whether ``token`` ends a generation."""
        return token in self.end_ids

    def piece(self, token: int) -> bytes:
        """The bytes ``token`` adds to the text; control tokens add none."""
        return b"" if token in self._silent else self._labels[token]

    def label(self, token: int) -> bytes:
        """The bytes that name ``token``, control tokens included."""
        return self._labels[token]

    def tokenize(self, text: str, *, add_special: bool) -> tuple[int, ...]:
        clean = text.encode("utf-8", "replace").decode()  # a lone surrogate is no text
        return tuple(self._backend.encode(clean, add_special_tokens=add_special).ids)

    def detokenize(self, token_ids: Sequence[int]) -> str:
        text = b"".join(map(self.label, token_ids)).decode("utf-8", "replace")
        return text.removeprefix(" ") if self._strips_space else text


def _template(source: Any) -> str | None:
    """A model may have several templates by name."""
    if isinstance(source, dict):
        source = source.get("default")
    return source if isinstance(source, str) and source else None


def _decoder_kinds(decoder: dict[str, Any]) -> set[str]:
    kinds = {str(decoder.get("type"))}
    for part in decoder.get("decoders", ()):
        kinds |= _decoder_kinds(part)
    return kinds


def _labels(backend: Any, added: dict[int, Any], byte_level: bool, n_vocab: int) -> list[bytes]:
    """The bytes of every id; a model may know more ids than its tokenizer, and those have none."""
    to_bytes = _byte_level if byte_level else _sentencepiece
    labels = [b""] * n_vocab
    for text, i in backend.get_vocab(with_added_tokens=True).items():
        if i < n_vocab:
            labels[i] = added[i].content.encode() if i in added else to_bytes(text)
    return labels


def _byte_level(text: str) -> bytes:
    """GPT-2 writes each byte as a printable character."""
    try:
        return bytes(_BYTES[char] for char in text)
    except KeyError:
        return text.encode()


def _sentencepiece(text: str) -> bytes:
    """Bytes outside the vocabulary are written like ``<0x0A>``, spaces as U+2581."""
    if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
        return bytes([int(text[3:5], 16)])
    return text.replace("\u2581", " ").encode()


def _byte_characters() -> dict[str, int]:
    """The inverse of GPT-2's ``bytes_to_unicode``: printable bytes stand for themselves, the others for
    the characters from 256 on, in order."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTES = _byte_characters()
