"""The token counts in an answer that is passed on unread."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from engines.base import Usage

# Inside of text the quotation marks would be escaped.
_KEY = re.compile(rb'"usage"\s*:\s*(?=\{)')
_MOST_BYTES = 4096
_decoder = json.JSONDecoder()


def find_usage(end: bytes) -> Usage | None:
    """The last usage object in ``end``, the last part of a JSON body or event stream."""
    starts = [match.end() for match in _KEY.finditer(end)]
    if not starts:
        return None
    text = end[starts[-1] : starts[-1] + _MOST_BYTES].decode("utf-8", "replace")
    try:
        counts, _ = _decoder.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return usage_of(counts)


def usage_of(counts: Mapping[str, Any]) -> Usage:
    """``counts`` in OpenAI's form; what is missing or no count is 0. Raises `ValueError` if they are none."""
    if not isinstance(counts, Mapping):
        raise ValueError("usage is no object")
    details = counts.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else counts.get("cached_tokens")
    return Usage(_count(counts.get("prompt_tokens")), _count(counts.get("completion_tokens")), _count(cached))


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
