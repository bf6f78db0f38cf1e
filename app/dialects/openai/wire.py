"""OpenAI's event streams and documents, as a proxy that does not read them must know them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
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
# A field with text, whatever kind of event it stands in. An event brings one token or several; some servers
# (as this one) tell reasoning under both names.
_TEXT = re.compile(rb'"(?:content|text|reasoning_content|arguments)"\s*:\s*"(?!")')
_REASONING = re.compile(rb'"reasoning"\s*:\s*"(?!")')
_REASONING_TOO = b'"reasoning_content"'
_decoder = json.JSONDecoder()


def is_end(tail: bytes) -> bool:
    """Whether a stream that ends with ``tail`` came to its end."""
    return tail.rstrip().endswith((b"data: [DONE]", b"data:[DONE]"))


def count_tokens(data: bytes) -> int:
    """About how many tokens a piece of a stream carries: its events with text in them."""
    count = len(_TEXT.findall(data))
    return count if _REASONING_TOO in data else count + len(_REASONING.findall(data))


def find_usage(tail: bytes) -> Usage | None:
    """The last usage object in ``tail``, the last part of a JSON body or event stream."""
    counts = next(usage_objects(tail), None)
    return None if counts is None else usage_of(counts)


def usage_objects(tail: bytes) -> Iterator[Mapping[str, Any]]:
    """The usage objects in ``tail``, the last first."""
    field = len(tail)
    for _ in range(_MOST_PLACES):
        field = tail.rfind(_USAGE, 0, field)
        if field < 0:
            return
        counts_at = _COUNTS.match(tail, field + len(_USAGE))
        if counts_at is None:
            continue
        text = tail[counts_at.end() : counts_at.end() + _MOST_BYTES].decode("utf-8", "replace")
        try:
            counts, _ = _decoder.raw_decode(text)
        except (ValueError, RecursionError):
            return
        yield counts


def usage_of(counts: Mapping[str, Any]) -> Usage:
    """``counts`` in OpenAI's form; what is missing or no count is 0."""
    return Usage(
        count_of(counts.get("prompt_tokens")),
        count_of(counts.get("completion_tokens")),
        count_of(detail_of(counts, "prompt_tokens_details", "cached_tokens")),
        count_of(detail_of(counts, "completion_tokens_details", "reasoning_tokens")),
    )


def detail_of(counts: Mapping[str, Any], details: str, name: str) -> object:
    """A count in the object ``details`` of ``counts``, if there is one."""
    found = counts.get(details)
    return found.get(name) if isinstance(found, dict) else None


def count_of(value: object) -> int:
    """A number of tokens; 0 for what is none."""
    if not isinstance(value, int) or isinstance(value, bool):
        return 0
    return value if 0 < value <= _MOST_TOKENS else 0


WIRE = WireFormat(is_end=is_end, find_usage=find_usage, count_tokens=count_tokens)
