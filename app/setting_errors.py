"""Setting errors: a line for each setting that is wrong, with what it may be and where it came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from app.variables import Variable
from engines.models.catalog.engine_name import OneOfTheEngines

_NUMBERS = {int: "a whole number", float: "a number"}
_LIMITS = {"ge": "at least {}", "gt": "more than {}", "le": "at most {}", "lt": "less than {}"}


def explain(
    error: ValidationError, fields: Mapping[str, FieldInfo], variables: Mapping[str, Variable]
) -> list[str]:
    """The lines. None shows a value that may be or hold a key."""
    lines: dict[str, str] = {}
    for item in error.errors(include_url=False):
        name = str(item["loc"][0]) if item["loc"] else ""
        if name not in fields:
            lines.setdefault(name, _own_words(item) or item["msg"])
            continue
        text = _own_words(item) or f"must be {allowed(fields[name])}"
        variable = variables.get(name)
        shown = "" if is_secret(name) else f"={variable.value if variable else item['input']}"
        origin = f" ({variable.origin})" if variable else ""
        lines.setdefault(name, f"{name.upper()}{shown}{origin}: {text}")
    return list(lines.values())


def is_secret(name: str) -> bool:
    """Whether a setting's value may hold a key."""
    return "key" in name.split("_") or "keys" in name.split("_") or name == "upstreams"


def _own_words(item: Mapping[str, Any]) -> str:
    """What a validator of ours says; empty for pydantic's own words."""
    cause = item.get("ctx", {}).get("error")
    return str(cause) if isinstance(cause, ValueError) else ""


def allowed(field: FieldInfo) -> str:
    """What may be written for ``field``: ``a whole number, at least 1``."""
    parts = [" or ".join(_kinds(field.annotation, field))]
    for note in field.metadata:
        parts += [text.format(getattr(note, kind)) for kind, text in _LIMITS.items() if hasattr(note, kind)]
    return ", ".join(parts)


def choices(field: FieldInfo) -> tuple[str, ...]:
    """The values that ``field`` may have, if they are listed."""
    if get_origin(field.annotation) is Literal:
        return get_args(field.annotation)
    listed = (note.choices for note in field.metadata if isinstance(note, OneOfTheEngines))
    return next(listed, ())


def _kinds(annotation: Any, field: FieldInfo) -> Iterator[str]:
    if listed := choices(field):
        yield " or ".join(filter(None, (", ".join(listed[:-1]), listed[-1])))
    elif get_origin(annotation) is Literal:
        yield from map(str, get_args(annotation))
    elif annotation is bool:
        yield "true or false"
    elif annotation in _NUMBERS:
        yield _NUMBERS[annotation]
    elif isinstance(annotation, type) and issubclass(annotation, Enum):
        *most, last = (str(member.value) for member in annotation)
        yield f"{', '.join(most)} or {last}"
    elif parts := get_args(annotation):
        for part in parts:
            yield from _kinds(part, field)
    else:
        yield "text"
