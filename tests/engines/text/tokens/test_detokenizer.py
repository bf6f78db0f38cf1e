"""Whole characters only, and the same text however the bytes were split."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.text.tokens.detokenizer import Utf8Stream

TEXT = "aé€😀e\u0301\u200d\n한"


def decode(pieces: list[bytes]) -> str:
    stream = Utf8Stream()
    return "".join([*(stream.feed(piece) for piece in pieces), stream.flush()])


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_pieces_of_any_size(size: int) -> None:
    data = TEXT.encode()
    assert decode([data[i : i + size] for i in range(0, len(data), size)]) == TEXT


def test_every_split_in_three() -> None:
    data = TEXT.encode()
    for first, second in itertools.combinations_with_replacement(range(len(data) + 1), 2):
        assert decode([data[:first], data[first:second], data[second:]]) == TEXT


def test_a_character_comes_out_once_it_is_complete() -> None:
    stream = Utf8Stream()
    outputs = [stream.feed(bytes([byte])) for byte in "€x".encode()]
    assert outputs == ["", "", "€", "x"]


def test_pending_says_that_a_character_has_begun() -> None:
    stream = Utf8Stream()
    assert not stream.pending
    stream.feed(b"a\xf0\x9f")
    assert stream.pending
    stream.feed(b"\x98\x80")
    assert not stream.pending


def test_an_invalid_byte_is_replaced_at_once() -> None:
    stream = Utf8Stream()
    assert stream.feed(b"a\xffb") == "a\ufffdb"


def test_a_character_cut_by_another_is_replaced() -> None:
    stream = Utf8Stream()
    assert stream.feed(b"\xe2\x82") == ""
    assert stream.feed(b"a") == "\ufffda"


def test_flush_replaces_an_unfinished_character_once() -> None:
    stream = Utf8Stream()
    stream.feed(b"\xf0\x9f\x98")
    assert stream.flush() == "\ufffd"
    assert stream.flush() == ""


@given(st.lists(st.binary(max_size=6)))
def test_any_bytes_decode_as_they_would_in_one_piece(pieces: list[bytes]) -> None:
    assert decode(pieces) == b"".join(pieces).decode("utf-8", "replace")
