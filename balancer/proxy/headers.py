"""Headers: which of them pass through the proxy, either way.

What is not named here stays behind: keys, cookies, hop-by-hop headers.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable
from datetime import UTC
from email.utils import parsedate_to_datetime

Header = tuple[bytes, bytes]

# To the upstream. Credentials are the proxy's own business.
REQUEST_HEADERS = frozenset({b"accept", b"content-type", b"traceparent", b"tracestate", b"user-agent"})

# To the client.
RESPONSE_HEADERS = frozenset(
    {
        b"cache-control",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"openai-processing-ms",
        b"x-accel-buffering",
        b"x-enginehouse-ignored",
    }
)
RESPONSE_PREFIX = b"x-ratelimit-"

# A client is not told to wait longer, in seconds, whatever an upstream says.
MOST_WAIT = 3600
# Headers that say how long to wait, in so many parts of a second.
_WAITS = {b"retry-after": 1, b"retry-after-ms": 1000}
_NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?").fullmatch
_LONGEST_TIME = 512

_DATA_TYPE = re.compile(
    rb"(application/([a-z.-]+\+)?(json|x-ndjson|octet-stream)|text/(event-stream|plain))\s*(;|$)",
    re.IGNORECASE,
).match
_ZERO = re.compile(rb"q=0(\.0*)?").fullmatch
_NOT_PRINTABLE = re.compile(rb"[^\t\x20-\x7e\x80-\xff]").search


def for_upstream(headers: Iterable[Header]) -> list[Header]:
    """What an upstream is told of a client's ``headers``, whose names are in lower case."""
    return [(name, value) for name, value in headers if name in REQUEST_HEADERS and not _NOT_PRINTABLE(value)]


def encoding_for_upstream(headers: Iterable[Header]) -> bytes:
    """The Accept-Encoding that an upstream is sent for a client's ``headers``, whose names are in lower case.

    It is ``identity``, whatever codings the client names beside it: of an encoded body nobody can tell the
    tokens used, nor whether an event stream came to its end, and most clients name codings by default. Only a
    client that rules ``identity`` out gets its own header passed on. A body that an upstream encodes
    nevertheless goes to the client as it is, with its Content-Encoding.
    """
    wanted = value_of(headers, b"accept-encoding")
    if wanted is None or b"=0" not in wanted or _NOT_PRINTABLE(wanted) or _accepts_identity(wanted):
        return b"identity"
    return wanted


def _accepts_identity(accepted: bytes) -> bool:
    """Whether an Accept-Encoding allows an unencoded answer (RFC 9110, 12.5.3)."""
    refused = {}
    for part in accepted.lower().split(b","):
        coding, _, weight = part.replace(b" ", b"").partition(b";")
        refused[coding] = _ZERO(weight) is not None
    return not refused.get(b"identity", refused.get(b"*", False))


def for_client(headers: Iterable[Header]) -> list[Header]:
    """What a client is told of an upstream's ``headers``, whose names are in lower case.

    Their values have no control characters: the parser takes such an answer for none. An event stream's
    length is left out: a stream that breaks off ends with an event more. What is no data (a page in HTML, as
    servers in front of others have them) goes as plain text: no browser is to run it under our address.
    """
    headers = list(headers)
    told: list[Header] = []
    for name, value in headers:
        if name in _WAITS:
            if (seconds := _wait(value, _WAITS[name])) is not None:
                told.append((name, seconds))
        elif name == b"content-length" and is_events(headers):
            continue
        elif name == b"content-type" and not is_data(value):
            told.append((name, b"text/plain; charset=utf-8"))
        elif name in RESPONSE_HEADERS or name.startswith(RESPONSE_PREFIX):
            told.append((name, value))
    return told


def is_data(content_type: bytes) -> bool:
    """Whether a body of this type is for programs."""
    return _DATA_TYPE(content_type) is not None


def is_events(headers: Iterable[Header]) -> bool:
    """Whether these are the headers of an event stream."""
    return (value_of(headers, b"content-type") or b"").lower().startswith(b"text/event-stream")


def _wait(value: bytes, unit: int) -> bytes | None:
    """The wait that an upstream asks for in ``value``, in so many parts of a second, within `MOST_WAIT`;
    None if that is no time (RFC 9110, 10.2.3)."""
    text = value.strip()[:_LONGEST_TIME].decode("latin-1")
    if _NUMBER(text):
        return b"%d" % math.ceil(min(float(text), MOST_WAIT * unit))
    try:
        date = parsedate_to_datetime(text)
        seconds = date.replace(tzinfo=date.tzinfo or UTC).timestamp() - time.time()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return b"%d" % math.ceil(max(0.0, min(seconds, MOST_WAIT)) * unit)


def value_of(headers: Iterable[Header], wanted: bytes) -> bytes | None:
    """The first value of ``wanted``, or None."""
    return next((value for name, value in headers if name == wanted), None)


def add_to_list(headers: Iterable[Header], name: bytes, value: bytes) -> list[Header]:
    """``headers`` with what the list ``value`` names in the header ``name``, beside what is there; nothing
    twice."""
    headers = list(headers)
    lists = [each for known, each in headers if known == name] + [value]
    joined = b", ".join(dict.fromkeys(item.strip() for each in lists for item in each.split(b",")))
    return [*(header for header in headers if header[0] != name), (name, joined)]


def is_sendable(value: str) -> bool:
    """Whether ``value`` can stand in a header, as a key must."""
    return value.isascii() and not _NOT_PRINTABLE(value.encode())
