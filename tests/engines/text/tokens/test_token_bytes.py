"""The bytes of tokens, by the way their vocabulary writes them."""

from __future__ import annotations

import pytest
import tokenizers
from tokenizers import decoders, pre_tokenizers

from engines.text.tokens.token_bytes import byte_level, decoder_kinds, rule, sentence_piece


@pytest.mark.parametrize(
    ("token", "raw"),
    [("Ġship", b" ship"), ("Ã", b"\xc3"), ("Ā", b"\x00"), ("<|日|>", "<|日|>".encode()), ("", b"")],
)
def test_byte_level(token: str, raw: bytes) -> None:
    assert byte_level(token) == raw


@pytest.mark.parametrize(
    ("token", "raw"),
    [("▁a", b" a"), ("<0x0A>", b"\n"), ("<0xGG>", b"<0xGG>"), ("a\ud800", b"a?"), ("é", "é".encode())],
)
def test_sentence_piece(token: str, raw: bytes) -> None:
    assert sentence_piece(token) == raw


def test_the_table_is_the_tokenizers_own() -> None:
    written = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for text in [*map(chr, range(0x100)), "日本語 😀"]:
        tokens = [token for token, _ in written.pre_tokenize_str(text)]
        assert b"".join(map(byte_level, tokens)) == text.encode()


@pytest.mark.parametrize(
    ("decoder", "found"),
    [
        (decoders.ByteLevel(), byte_level),
        (decoders.Sequence([decoders.Sequence([decoders.ByteLevel()])]), byte_level),
        (decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback()]), sentence_piece),
        (decoders.Metaspace(), sentence_piece),
        (decoders.WordPiece(), None),
        (None, None),
    ],
)
def test_the_decoder_tells_the_rule(decoder: object, found: object) -> None:
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    if decoder is not None:
        backend.decoder = decoder
    assert rule(decoder_kinds(backend)) is found
