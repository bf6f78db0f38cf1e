"""JSON values that may be large: measured, and encoded in pieces, between which other threads run.

What the standard library encodes at once keeps Python's lock for as long as it takes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

# Characters that are encoded at once.
PIECE = 64 * 1024


def texts_of(value: Any, most: int | None = None) -> list[str]:
    """The texts in ``value``, keys among them, and an empty one for each of its other parts; only the first
    if they have more than ``most`` characters."""
    found: list[str] = []
    _collect(value, found, most)
    return found


def size_of(texts: list[str]) -> int:
    """Characters in what `texts_of` found, and one for each part."""
    return sum(map(len, texts)) + len(texts)


def _collect(value: Any, found: list[str], most: int | None) -> int | None:
    """What is left of ``most``."""
    if isinstance(value, str):
        found.append(value)
        return None if most is None else most - len(value) - 1
    if isinstance(value, Mapping):
        parts = [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple):
        parts = [*value]
    else:
        parts = []
    found.append("")
    for each in parts:
        if most is not None and most < 0:
            break
        most = _collect(each, found, most)
    return None if most is None else most - 1


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
