"""JSON bodies: parsed in a time that has a bound, whatever is in them.

Parsing, and checking a schema, hold the event loop (and in a thread they would hold the interpreter's lock).
How long depends on how much there is beside plain text, so a large body is looked through first, a slice at
a time: what has more in it than a request can have is refused.
"""

from __future__ import annotations

import asyncio
import json
import re
from itertools import accumulate
from typing import Any

from app.errors import ApiError, invalid_request

# Smaller ones are parsed at once: nothing in them takes long.
SMALL_BYTES = 64 * 2**10

MAX_DEPTH = 128
MAX_CONTAINERS = 2**13
MAX_MEMBERS = 2**15
MAX_VALUES = 2**18
MAX_ESCAPES = 2**21
MAX_NUMBER_LENGTH = 128

_SLICE_BYTES = 64 * 2**10
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_OPENING = frozenset(b"[{")
_LONG_NUMBER = re.compile(rb"[0-9.eE+-]{%d}" % (MAX_NUMBER_LENGTH + 1))


def is_small(body: bytes) -> bool:
    """Whether `parse` may have it at once."""
    return len(body) <= SMALL_BYTES and body.count(b"[") + body.count(b"{") <= MAX_DEPTH


async def parse_large(body: bytes) -> Any:
    """What `parse` gives, without holding the event loop for long. Raises `ApiError`."""
    structure = _Structure()
    start = 0
    while start < len(body):
        end = _slice_end(body, start)
        structure.read(body[start:end])
        start = end
        await asyncio.sleep(0)
    document = parse(body)
    await asyncio.sleep(0)
    return document


def check(body: bytes) -> None:
    """Raise `ApiError` if a body of moderate size has more in it than a request can have."""
    _Structure().read(body)


def parse(body: bytes) -> Any:
    """Raises `ApiError` for what is no JSON."""
    if not body:
        raise invalid_request([{"type": "missing", "loc": ("body",), "msg": "Field required"}])
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        reason = error.msg
    except UnicodeDecodeError:
        reason = "it is not UTF-8"
    except ValueError:
        reason = "a number in it is too long"
    except RecursionError:
        reason = "it nests too deep"
    raise _no_json(reason)


class _Structure:
    """The count of what takes time to parse, over slices that end in no escape."""

    def __init__(self) -> None:
        self._in_string = False
        self._depth = self._containers = self._members = self._commas = self._escapes = 0

    def read(self, data: bytes) -> None:
        if b"\0" in data:
            raise _no_json("it is not UTF-8")
        self._escapes += data.count(b"\\")
        outside = self._outside(data)
        self._commas += outside.count(b",")
        self._members += outside.count(b":")
        brackets = outside.translate(None, _NO_BRACKETS)
        self._containers += sum(map(brackets.count, (b"[", b"{")))
        self._refuse_many()
        depths = [self._depth, *accumulate(map(_step, brackets), initial=self._depth)]
        self._depth = depths[-1]
        if max(depths) > MAX_DEPTH:
            raise _no_json(f"it nests deeper than {MAX_DEPTH} levels")
        if min(depths) < 0:
            raise _no_json("more is closed in it than was opened")
        if _LONG_NUMBER.search(outside):
            raise _no_json("a number in it is too long")

    def _outside(self, data: bytes) -> bytes:
        if b"\\" in data:
            data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
        parts = data.split(b'"')
        outside = parts[self._in_string :: 2]
        self._in_string ^= len(parts) % 2 == 0
        # The quotation marks keep numbers on both sides of a string apart.
        return b'"'.join(outside)

    def _refuse_many(self) -> None:
        for count, most, what in (
            (self._containers, MAX_CONTAINERS, "objects and arrays"),
            (self._members, MAX_MEMBERS, "members of objects"),
            (self._containers + self._commas, MAX_VALUES, "values"),
            (self._escapes, MAX_ESCAPES, "backslashes"),
        ):
            if count > most:
                raise ApiError(400, "invalid_request_error", f"The body has more than {most} {what}.")


def _slice_end(body: bytes, start: int) -> int:
    """Where the slice from ``start`` on ends: not between a backslash and what it escapes."""
    end = min(start + _SLICE_BYTES, len(body))
    piece = body[start:end]
    is_cut = (len(piece) - len(piece.rstrip(b"\\"))) % 2 == 1
    return end + is_cut


def _step(bracket: int) -> int:
    return 1 if bracket in _OPENING else -1


def _no_json(reason: str) -> ApiError:
    return invalid_request([{"type": "json_invalid", "loc": (), "msg": "", "ctx": {"error": reason}}])
