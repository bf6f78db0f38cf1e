"""OpenAI's streams and documents, as a proxy sees them."""

from __future__ import annotations

import pytest

from app.dialects.openai.wire import count_tokens, find_usage, is_end
from engines.base import Usage


@pytest.mark.parametrize(
    ("end", "usage"),
    [
        (b'{"usage":{"prompt_tokens":1,"total_tokens":1}}', Usage(1, 0)),
        (b'{"usage": {"prompt_tokens": 1}} {"usage" : {"prompt_tokens": 2}, "usage": null', Usage(2, 0)),
        (b'{"content":"\\"usage\\":{\\"prompt_tokens\\":9}"}', None),
        (b'{"usage":{"prompt_tokens":true,"completion_tokens":-1,"prompt_tokens_details":[]}}', Usage(0, 0)),
        (b'{"usage":{', None),
        (b'{"usage":' + b'{"a":' * 5000, None),
        (b"", None),
    ],
)
def test_finding_usage(end: bytes, usage: Usage | None) -> None:
    assert find_usage(end) == usage


@pytest.mark.parametrize(
    ("piece", "tokens"),
    [
        (b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n', 0),
        (b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n' * 3, 3),
        (b'data: {"choices":[{"text": "a"}]}\n\n', 1),
        (b'data: {"choices":[{"delta":{"reasoning_content":"hm"}}]}\n\n', 1),
        (b'data: {"choices":[{"delta":{"reasoning_content":"hm","reasoning":"hm"}}]}\n\n', 1),
        (b'data: {"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"{"}}]}}]}\n\n', 1),
        (b'data: {"choices":[{"delta":{"content":"say \\"content\\":\\"x\\""}}]}\n\n', 1),
        (b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n', 0),
    ],
)
def test_counting_tokens(piece: bytes, tokens: int) -> None:
    assert count_tokens(piece) == tokens


def test_the_end_mark() -> None:
    assert is_end(b"data: [DONE]\n\n")
    assert is_end(b"x\n\ndata:[DONE]")
    assert not is_end(b'data: {"content":"data: [DONE]"}\n\n')
