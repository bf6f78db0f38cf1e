"""Anthropic's streams and documents, as a proxy sees them that does not read them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.dialects.anthropic.wire import WIRE
from app.sse import sse
from engines.base import Usage

STOP = sse({"type": "message_stop"}, "message_stop")
START = {
    "input_tokens": 25,
    "cache_creation_input_tokens": 3,
    "cache_read_input_tokens": 4,
    "output_tokens": 1,
}


def delta(**fields: Any) -> bytes:
    return sse({"type": "content_block_delta", "index": 0, "delta": fields}, "content_block_delta")


@pytest.mark.parametrize(
    ("tail", "is_end"),
    [
        (STOP, True),
        (b'event: message_stop\ndata: {"type": "message_stop"         }\r\n\r\n', True),
        (delta(type="text_delta", text='"type":"message_stop"}'), False),
        (STOP + sse({"type": "error"}, "error"), False),
        (STOP[:-4], False),
        (b"", False),
    ],
)
def test_the_end(tail: bytes, is_end: bool) -> None:
    assert WIRE.is_end(tail) is is_end


def test_tokens_of_events() -> None:
    begun = sse({"content_block": {"type": "text", "text": ""}}, "content_block_start")
    pieces = [
        delta(type="text_delta", text="a"),
        delta(type="thinking_delta", thinking="b"),
        delta(type="input_json_delta", partial_json='{"'),
        delta(type="signature_delta", signature="x"),
    ]
    assert WIRE.count_tokens(begun + b"".join(pieces) + STOP) == 3
    assert pieces[0].count(b"\n") == WIRE.event_lines


@pytest.mark.parametrize(
    ("last", "usage"),
    [
        ({"output_tokens": 9}, Usage(32, 9, 4)),
        ({"output_tokens": 9, "output_tokens_details": {"thinking_tokens": 5}}, Usage(32, 9, 4, 5)),
        ({"input_tokens": 2, "cache_read_input_tokens": 30, "output_tokens": 9}, Usage(32, 9, 30)),
        ({"input_tokens": None, "output_tokens": 9}, Usage(0, 9)),
    ],
)
def test_the_usage_of_a_stream(last: dict[str, Any], usage: Usage) -> None:
    """Of others' streams, the last count may leave out the prompt."""
    start = sse({"type": "message_start", "message": {"usage": START}}, "message_start")
    text = delta(type="text_delta", text='"usage": {"input_tokens": 7}')
    assert WIRE.find_usage(start + text + sse({"type": "message_delta", "usage": last}) + STOP) == usage


def test_the_usage_of_a_document() -> None:
    assert WIRE.find_usage(json.dumps({"content": [], "usage": START}).encode()) == Usage(32, 1, 4)
    assert WIRE.find_usage(b"{}") is None
