"""Fields of requests that this server does not know: found at whatever depth, and taken out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from app.schemas.common import WireModel

# More of one request are not told of: the caller made them up.
MOST_UNKNOWN = 32

Body = TypeVar("Body", bound=WireModel)
Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class UnknownField:
    """A field that no schema has, and that is not null: ``place`` is where it stands first, ``name`` the same
    without positions in lists."""

    place: str
    name: str


def read_body(schema: type[Body], document: Any) -> tuple[Body, tuple[UnknownField, ...]]:
    """``document`` as ``schema`` reads it, without the fields that the schema does not know, and those.

    Raises pydantic's `ValidationError`.
    """
    body = schema.model_validate(document)
    found: dict[str, UnknownField] = {}
    _take(body, (), found)
    return body, tuple(found.values())


def _take(body: WireModel, place: Place, found: dict[str, UnknownField]) -> None:
    """Move what nobody knows from ``body``, which stands at ``place``, to ``found``.

    As quick as can be: there may be thousands of models in a body, and hardly ever something to find.
    """
    if extra := body.__pydantic_extra__:
        for name, value in extra.items():
            if value is not None and len(found) < MOST_UNKNOWN:
                _note((*place, name), found)
        extra.clear()
    for field, name in body.nested:
        value = getattr(body, field)
        if isinstance(value, WireModel):
            _take(value, (*place, name), found)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, WireModel):
                    _take(item, (*place, name, index), found)


def _note(place: Place, found: dict[str, UnknownField]) -> None:
    name = ".".join(step for step in place if isinstance(step, str))
    found.setdefault(name, UnknownField(".".join(map(str, place)), name))
