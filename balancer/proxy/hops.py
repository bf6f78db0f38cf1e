"""Hops: the servers that a request came through, so that none passes it round in circles.

Every server has an id of its own, and writes it into each request that it sends to an upstream, behind those
that the request brought. It tells the id in its list of models, too.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Sequence

from balancer.proxy.headers import Header, value_of

HOPS_HEADER = b"x-enginehouse-hops"
# A request is passed on by so many servers, one after the other, and no more.
MAX_HOPS = 3

# What a client may write there: more bytes are not looked at.
_MOST_BYTES = 512
_ID = re.compile(rb"(?<![0-9a-f])[0-9a-f]{16}(?![0-9a-f])")


def new_server_id() -> str:
    return secrets.token_hex(8)


def read_hops(headers: Iterable[Header]) -> tuple[str, ...]:
    """The ids of the servers that a request came through, oldest first; what is no id does not count."""
    value = value_of(headers, HOPS_HEADER)
    return () if value is None else tuple(found.decode() for found in _ID.findall(value[:_MOST_BYTES]))


def hops_header(hops: Sequence[str], server_id: str) -> Header:
    """The header for an upstream of a request that came through ``hops`` to the server ``server_id``."""
    return HOPS_HEADER, ", ".join([*hops, server_id]).encode("ascii")
