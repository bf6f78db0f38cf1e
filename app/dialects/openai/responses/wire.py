"""Event streams and documents of responses, as a proxy that does not read them must know them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from app.dialects.openai import wire
from app.dialects.openai.wire import count_of, detail_of, usage_objects
from balancer.call import WireFormat
from engines.base import Usage

# An event that brings text.
_DELTA = re.compile(rb'"delta"\s*:\s*"(?!")')
_LAST = re.compile(rb'"type"\s*:\s*"response\.(?:completed|incomplete)"')
_BEGINNING = 512
_LONG = 8192


def is_end(tail: bytes) -> bool:
    """Whether a stream that ends with ``tail`` came to its end.

    OpenAI's ends with the event that has the response, others add ``[DONE]``. Of a long event only its end
    may be in ``tail``: a whole response is the one event that is so long.
    """
    if wire.is_end(tail):
        return True
    last = tail.rstrip()
    if not tail.endswith((b"\n\n", b"\r\n\r\n")):
        return False
    begin = max(last.rfind(b"\n\n"), last.rfind(b"\r\n\r\n"))
    if begin < 0 and len(last) > _LONG:
        return True
    begin = max(0, begin)
    return _LAST.search(last, begin, begin + _BEGINNING) is not None


def count_tokens(data: bytes) -> int:
    """About how many tokens a piece of a stream carries: its events with text in them."""
    return len(_DELTA.findall(data))


def find_usage(tail: bytes) -> Usage | None:
    """The last usage object in ``tail``, the last part of a JSON body or event stream."""
    counts = next(usage_objects(tail), None)
    return None if counts is None else _usage(counts)


def _usage(counts: Mapping[str, Any]) -> Usage:
    return Usage(
        count_of(counts.get("input_tokens")),
        count_of(counts.get("output_tokens")),
        count_of(detail_of(counts, "input_tokens_details", "cached_tokens")),
        count_of(detail_of(counts, "output_tokens_details", "reasoning_tokens")),
    )


WIRE = WireFormat(is_end=is_end, find_usage=find_usage, count_tokens=count_tokens, event_lines=3)
