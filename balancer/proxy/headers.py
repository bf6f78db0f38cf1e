"""Which headers pass through, either way. What is not named here stays behind: keys, cookies, hop-by-hop."""

from __future__ import annotations

import re
from collections.abc import Iterable

Header = tuple[bytes, bytes]

# To the upstream. Credentials are the relay's own business.
REQUEST_HEADERS = frozenset({b"accept", b"content-type", b"traceparent", b"tracestate", b"user-agent"})

# To the client.
RESPONSE_HEADERS = frozenset(
    {
        b"cache-control",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"openai-processing-ms",
        b"retry-after",
        b"retry-after-ms",
        b"x-accel-buffering",
    }
)
RESPONSE_PREFIX = b"x-ratelimit-"

_NOT_PRINTABLE = re.compile(rb"[^\t\x20-\x7e\x80-\xff]").search


def for_upstream(headers: Iterable[Header]) -> list[Header]:
    """What an upstream is told of a client's ``headers``, whose names are in lower case."""
    return [(name, value) for name, value in headers if name in REQUEST_HEADERS and not _NOT_PRINTABLE(value)]


def for_client(headers: Iterable[Header]) -> list[Header]:
    """What a client is told of an upstream's ``headers``, whose names are in lower case.

    Their values have no control characters: the parser takes such an answer for none.
    """
    return [
        (name, value)
        for name, value in headers
        if name in RESPONSE_HEADERS or name.startswith(RESPONSE_PREFIX)
    ]


def value_of(headers: Iterable[Header], wanted: bytes) -> bytes | None:
    """The first value of ``wanted``, or None."""
    return next((value for name, value in headers if name == wanted), None)


def is_sendable(value: str) -> bool:
    """Whether ``value`` can stand in a header, as a key must."""
    return value.isascii() and not _NOT_PRINTABLE(value.encode())
