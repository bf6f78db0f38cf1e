"""JSON schemas that a grammar can follow exactly: checks that llguidance lacks, and the place of a fault."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, TypeGuard

from engines.errors import RequestError

Path = tuple[str, ...]

# Larger ones cannot be told apart as floating-point numbers, which llguidance computes with.
EXACT = 2**53
# The largest bounds that llguidance takes.
_MOST_INTEGER = 2**63 - 1024
_MOST_NUMBER = 10**18

# What takes llguidance long, growing with the square: a step of that many units (of the last decimal), items
# of one array, and properties of one object that may be left out.
MOST_UNITS = 20_000
MOST_ITEMS = 10_000
MOST_OPTIONAL = 2_000
# Patterns that must hold together, or not together: each pair may take it a second.
MOST_CROSSED = 16

# Options for llguidance that a schema may bring: they are ours to choose.
_OPTIONS = "x-guidance"
_LOWER, _UPPER = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")
# Where a schema has schemas: one, several, or several by name.
_ONE = (
    "additionalItems",
    "additionalProperties",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
)
_SEVERAL = ("allOf", "anyOf", "items", "oneOf", "prefixItems")
_DEFINITIONS = ("$defs", "definitions")
# What comes last is looked at first: a fault is told where it is defined.
_NAMED = ("dependentSchemas", "patternProperties", "properties", *_DEFINITIONS)

# Subschemas that are looked through for a fault.
MOST_TRIED = 500
LONGEST_NAME = 40
LONGEST_PLACE = 200


class SchemaFault(RequestError):
    """The refusal of a schema, with the place at fault."""

    def __init__(self, why: str, path: Path) -> None:
        super().__init__(f"the JSON schema cannot be followed{_at(path)}: {why}", param="response_format")


def checked(schema: Any, can_spell: Callable[[str], bool] | None = None) -> dict[str, Any]:
    """``schema`` as it can be followed exactly. Raises `SchemaFault` for what would come out wrong.

    ``can_spell`` says whether the model has tokens for a text.
    """
    if not isinstance(schema, bool | dict):
        raise SchemaFault("a schema is an object", ())
    if isinstance(schema, bool):
        schema = {} if schema else {"not": {}}
    ready: dict[str, Any] = {key: value for key, value in schema.items() if key != _OPTIONS}
    crossed = 0
    for path, part in _subschemas(ready):
        _check_cost(path, part)
        crossed += _crossed(part)
        if crossed > MOST_CROSSED:
            raise SchemaFault("too many patterns have to be told apart, or to hold together", path)
        _check_values(path, part, can_spell)
    return ready if _bounds_fit(ready) else _tightened(ready, ())


def place(schema: Mapping[str, Any], why: str, fault_of: Callable[[dict[str, Any]], str]) -> SchemaFault:
    """The fault of a ``schema`` that is refused because of ``why``: its deepest part that is refused alone.

    ``fault_of`` says why a schema is refused, "" if it is not.
    """
    definitions = {key: schema[key] for key in _DEFINITIONS if key in schema}
    found: Path = ()
    for count, (path, part) in enumerate(_subschemas(schema)):
        if count > MOST_TRIED:
            break
        is_inside = path[: len(found)] == found and len(path) > len(found)
        if is_inside and (fault := fault_of({**definitions, **part})):
            found, why = path, fault
    return SchemaFault(why, found)


def _subschemas(schema: Mapping[str, Any]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The objects among the schemas in ``schema``, itself included, each after those that it is in."""
    waiting: list[tuple[Path, Any]] = [((), schema)]
    while waiting:
        path, part = waiting.pop()
        if not isinstance(part, dict):
            continue
        yield path, part
        waiting += [((*path, *step), child) for step, child in _children(part)]


def _children(schema: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    for key in _ONE:
        if isinstance(schema.get(key), dict):
            yield (key,), schema[key]
    for key in _SEVERAL:
        if isinstance(children := schema.get(key), list):
            yield from (((key, str(i)), child) for i, child in enumerate(children))
    for key in _NAMED:
        if isinstance(children := schema.get(key), dict):
            yield from (((key, name), child) for name, child in children.items())


# -- cost ----------------------------------------------------------------------------------------------


def _check_cost(path: Path, schema: Mapping[str, Any]) -> None:
    step = schema.get("multipleOf")
    if isinstance(step, int | float) and _units(step) > MOST_UNITS:
        raise SchemaFault(f"a step of {_short(str(step))} has too many digits", (*path, "multipleOf"))
    if _is_beyond(schema.get("minItems"), MOST_ITEMS):
        raise SchemaFault(f"an array may have {MOST_ITEMS:,} items at most", (*path, "minItems"))
    properties, required = schema.get("properties"), schema.get("required")
    if isinstance(properties, dict) and len(properties) > MOST_OPTIONAL:
        optional = len(properties) - (len(required) if isinstance(required, list) else 0)
        if optional > MOST_OPTIONAL:
            raise SchemaFault(
                f"more than {MOST_OPTIONAL:,} properties may be left out", (*path, "properties")
            )


def _crossed(schema: Mapping[str, Any]) -> int:
    """The pairs of patterns that have to be looked at together."""
    parts = [schema, *(every if isinstance(every := schema.get("allOf"), list) else [])]
    together = sum("pattern" in part for part in parts if isinstance(part, dict))
    apart = len(patterns) if isinstance(patterns := schema.get("patternProperties"), dict) else 0
    return max(0, together - 1) + apart * (apart - 1) // 2


def _units(step: float) -> int:
    _, digits, exponent = Decimal(str(step)).as_tuple()
    number = int("".join(map(str, digits)))
    return number * 10**exponent if isinstance(exponent, int) and 0 < exponent < 6 else number


# -- values --------------------------------------------------------------------------------------------


def _check_values(path: Path, schema: Mapping[str, Any], can_spell: Callable[[str], bool] | None) -> None:
    texts = [*properties] if isinstance(properties := schema.get("properties"), dict) else []
    values = [("const", schema["const"])] if "const" in schema else []
    if isinstance(enum := schema.get("enum"), list):
        values += [("enum", value) for value in enum]
    for key, value in values:
        for leaf in _leaves(value):
            if isinstance(leaf, str):
                texts.append(leaf)
            elif isinstance(leaf, int) and abs(leaf) > EXACT:
                raise SchemaFault(
                    f"{_short(str(leaf))} is beyond 2^53 and would come out rounded: give it as a string",
                    (*path, key),
                )
    if can_spell is None:
        return
    for text in texts:
        if not (text.isascii() and text.isprintable()) and not can_spell(
            json.dumps(text, ensure_ascii=False)
        ):
            raise SchemaFault(f"this model has no tokens that spell {_short(repr(text))}", path)


def _leaves(value: Any) -> Iterator[Any]:
    """The texts and numbers in a JSON value, names included."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            waiting += [*each.keys(), *each.values()]
        elif isinstance(each, list):
            waiting += each
        else:
            yield each


# -- bounds --------------------------------------------------------------------------------------------


def _bounds_fit(schema: Mapping[str, Any]) -> bool:
    return not any(
        _is_beyond(part.get("maxItems"), MOST_ITEMS)
        or any(_is_beyond(part.get(key), EXACT) for key in (*_LOWER, *_UPPER))
        for _, part in _subschemas(schema)
    )


def _is_beyond(bound: Any, most: int) -> TypeGuard[int | float]:
    return isinstance(bound, int | float) and abs(bound) > most


def _tightened(schema: Any, path: Path) -> Any:
    """``schema`` with bounds that can be computed with: such as allow no number that was not allowed."""
    if not isinstance(schema, dict):
        return schema
    ready = dict(schema)
    for key in (*_LOWER, *_UPPER):
        if _is_beyond(bound := schema.get(key), EXACT):
            ready[key] = _tighter(bound, schema.get("type") == "integer", key in _LOWER, (*path, key))
    if _is_beyond(schema.get("maxItems"), MOST_ITEMS):
        ready["maxItems"] = MOST_ITEMS
    for step, child in _children(schema):
        key, *name = step
        if not name:
            ready[key] = _tightened(child, (*path, *step))
            continue
        if ready[key] is schema[key]:
            ready[key] = schema[key].copy()
        at: Any = int(name[0]) if isinstance(schema[key], list) else name[0]
        ready[key][at] = _tightened(child, (*path, *step))
    return ready


def _tighter(bound: int | float, is_integer: bool, is_lower: bool, path: Path) -> int | float:
    sign = 1 if is_lower else -1
    most = _MOST_INTEGER if is_integer else _MOST_NUMBER
    if sign * bound > most:
        raise SchemaFault(f"{_short(str(bound))} is too large for a bound", path)
    if sign * bound < -most:
        return -sign * most
    nearest = float(bound)
    if sign * int(nearest) < sign * bound:
        nearest = math.nextafter(nearest, sign * math.inf)
    return int(nearest) if is_integer else nearest


# -- words ---------------------------------------------------------------------------------------------


def _at(path: Path) -> str:
    text = ".".join(_short(name) for name in path)
    return f" at {text[:LONGEST_PLACE]}" if path else ""


def _short(text: str) -> str:
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "…"
