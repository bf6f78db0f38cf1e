"""Anthropic's event streams and documents, as a proxy that does not read them must know them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from app.dialects.openai.wire import count_of, detail_of, usage_objects
from app.sse import sse
from balancer.call import WireFormat
from engines.base import Usage

_END = re.compile(rb'data:\s*\{[^\n]*"type"\s*:\s*"message_stop"[^\n]*\}\s*\Z')
# A field with text; blocks begin with an empty one.
_TEXT = re.compile(rb'"(?:text|thinking|partial_json)"\s*:\s*"(?!")')
# Lines of an event: its name, its data, and an empty one.
_LINES = 3


def is_end(tail: bytes) -> bool:
    """Whether a stream that ends with ``tail`` came to its end."""
    return _END.search(tail) is not None


def count_tokens(data: bytes) -> int:
    """About how many tokens a piece of a stream carries: its events with text in them."""
    return len(_TEXT.findall(data))


def find_usage(tail: bytes) -> Usage | None:
    """The token counts in ``tail``, the last part of a JSON body or event stream. Of a stream's, the last may
    tell only what was generated, and the first what it was asked."""
    last: Mapping[str, Any] | None = None
    for counts in usage_objects(tail):
        last = last or counts
        if "input_tokens" in counts:
            return _usage({**counts, "output_tokens": last.get("output_tokens")}, last)
    return None if last is None else _usage(last, last)


def _usage(counts: Mapping[str, Any], last: Mapping[str, Any]) -> Usage:
    cached = count_of(counts.get("cache_read_input_tokens"))
    created = count_of(counts.get("cache_creation_input_tokens"))
    return Usage(
        count_of(counts.get("input_tokens")) + cached + created,
        count_of(counts.get("output_tokens")),
        cached,
        count_of(detail_of(last, "output_tokens_details", "thinking_tokens")),
    )


WIRE = WireFormat(
    is_end=is_end,
    find_usage=find_usage,
    count_tokens=count_tokens,
    event_lines=_LINES,
    ping=sse({"type": "ping"}, "ping"),
)
