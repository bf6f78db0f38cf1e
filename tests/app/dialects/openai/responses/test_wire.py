"""Streams of responses, as a proxy sees them that does not read them."""

from __future__ import annotations

import pytest

from app.dialects.openai.responses.wire import count_tokens, find_usage, is_end
from engines.base import Usage

DELTA = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"a"}\n\n'
USAGE = (
    b'"usage":{"input_tokens":5,"input_tokens_details":{"cached_tokens":2},"output_tokens":3,'
    b'"output_tokens_details":{"reasoning_tokens":1},"total_tokens":8}'
)
LAST = b'event: response.completed\ndata: {"type":"response.completed","response":{' + USAGE + b"}}\n\n"
LONG = LAST.replace(b'"response":{', b'"response":{"output":"' + b"x" * 20_000 + b'",')


@pytest.mark.parametrize(
    ("stream", "ends"),
    [
        (DELTA + LAST + b"data: [DONE]\n\n", True),
        (DELTA + LAST, True),
        (LAST.replace(b"completed", b"incomplete"), True),
        (LAST.replace(b"\n", b"\r\n"), True),
        ((DELTA + LONG)[-16_384:], True),
        (DELTA, False),
        (DELTA + LAST[:-1], False),
        (DELTA + LAST[:40], False),
        (LAST.replace(b"completed", b"failed"), False),
        (b"", False),
    ],
)
def test_the_end_of_a_stream(stream: bytes, ends: bool) -> None:
    assert is_end(stream) == ends


def test_the_usage_is_found() -> None:
    assert find_usage(DELTA + LAST) == Usage(5, 3, 2, 1)
    assert find_usage(DELTA) is None


def test_events_with_text_are_counted() -> None:
    assert count_tokens(DELTA * 3 + LAST + DELTA.replace(b'"a"', b'""')) == 3
