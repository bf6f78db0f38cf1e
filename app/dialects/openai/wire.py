"""OpenAI's event streams and documents, as a proxy that does not read them must know them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from balancer.call import WireFormat
from engines.base import Usage

DONE = b"data: [DONE]\n\n"
"""The last event of a stream."""

# Inside of text the quotation marks would be escaped.
_USAGE = b'"usage"'
_COUNTS = re.compile(rb"\s*:\s*(?=\{)")
_MOST_BYTES = 4096
# Places where a usage object may begin that are looked at, from the end.
_MOST_PLACES = 64
# A count that is larger is none.
_MOST_TOKENS = 10**9
# A field with text, whatever kind of event it stands in. An event brings one token or several.
_TEXT = re.compile(rb'"(?:content|text|reasoning_content|reasoning|arguments)"\s*:\s*"(?!")')
_decoder = json.JSONDecoder()


def is_end(tail: bytes) -> bool:
    """Whether a stream that ends with ``tail`` came to its end."""
    return tail.rstrip().endswith((b"data: [DONE]", b"data:[DONE]"))


def count_tokens(data: bytes) -> int:
    """About how many tokens a piece of a stream carries: its events with text in them."""
    return len(_TEXT.findall(data))


def find_usage(tail: bytes) -> Usage | None:
    """The last usage object in ``tail``, the last part of a JSON body or event stream."""
    counts_at, field = None, len(tail)
    for _ in range(_MOST_PLACES):
        field = tail.rfind(_USAGE, 0, field)
        if field < 0:
            return None
        counts_at = _COUNTS.match(tail, field + len(_USAGE))
        if counts_at is not None:
            break
    else:
        return None
    text = tail[counts_at.end() : counts_at.end() + _MOST_BYTES].decode("utf-8", "replace")
    try:
        counts, _ = _decoder.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return usage_of(counts)


def usage_of(counts: Mapping[str, Any]) -> Usage:
    """``counts`` in OpenAI's form; what is missing or no count is 0."""
    return Usage(
        _count(counts.get("prompt_tokens")),
        _count(counts.get("completion_tokens")),
        _count(_detail(counts, "prompt_tokens_details", "cached_tokens")),
        _count(_detail(counts, "completion_tokens_details", "reasoning_tokens")),
    )


def _detail(counts: Mapping[str, Any], details: str, name: str) -> object:
    found = counts.get(details)
    return found.get(name) if isinstance(found, dict) else None


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        return 0
    return value if 0 < value <= _MOST_TOKENS else 0


WIRE = WireFormat(is_end=is_end, find_usage=find_usage, count_tokens=count_tokens)
