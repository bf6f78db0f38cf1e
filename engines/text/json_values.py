"""JSON values that may be large: measured, and encoded in pieces, between which other threads run.

What the standard library encodes at once keeps Python's lock for as long as it takes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

# Characters that are encoded at once.
PIECE = 64 * 1024


def size_of(value: Any, most: int | None = None) -> int:
    """Characters in ``value``, and one for each of its parts; stops counting beyond ``most``."""
    size = 1
    if isinstance(value, str):
        return size + len(value)
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple):
        for each in value:
            size += size_of(each, most)
            if most is not None and size > most:
                break
    return size


def encode(value: Any) -> str:
    """The JSON of ``value``. Raises what `json.dumps` does."""
    return json.dumps(value, default=_as_dict)


def encode_in_pieces(value: Any, check: Callable[[], None]) -> str:
    """The same for a large ``value``; ``check`` is called now and then, and may raise."""
    pieces: list[str] = []
    for count, piece in enumerate(_pieces(value)):
        if not count % 1024:
            check()
        pieces.append(piece)
    return "".join(pieces)


def _pieces(value: Any) -> Iterator[str]:
    if isinstance(value, str) and len(value) > PIECE:
        yield '"'
        for start in range(0, len(value), PIECE):
            yield json.dumps(value[start : start + PIECE])[1:-1]
        yield '"'
    elif isinstance(value, Mapping):
        yield "{"
        for count, (key, each) in enumerate(value.items()):
            yield f"{', ' if count else ''}{json.dumps(key if isinstance(key, str) else str(key))}: "
            yield from _pieces(each)
        yield "}"
    elif isinstance(value, list | tuple):
        yield "["
        for count, each in enumerate(value):
            if count:
                yield ", "
            yield from _pieces(each)
        yield "]"
    else:
        yield encode(value)


def _as_dict(value: object) -> dict[Any, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")
