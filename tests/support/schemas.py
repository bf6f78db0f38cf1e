"""JSON schemas made up at random, of all that a grammar is to follow exactly."""

from __future__ import annotations

import random
from typing import Any

_NAMES = ("a", "name", "zip code", "x-y", "ü", "日本", 'quo"te', "back\\slash", "$ref", "new\nline")
_TEXTS = ("", "a", "red", "the end", 'a "b"', "é\t", "日本", "\\", "\U0001f600", "\x7f")
_PATTERNS = ("^[a-c]{2,4}$", "^(yes|no)$", "^[0-9]{3}-[0-9]{4}$", "^x{1,9}y?$")
_LOOSE = ("^x+y?$", "[ab]c")
_FORMATS = ("date", "time", "date-time", "email", "uuid", "ipv4", "hostname")


class SchemaMaker:
    """Schemas of one ``seed``, each of at most ``depth`` levels; ``short``: no answer can go on for ever."""

    def __init__(self, seed: int, depth: int = 3, *, short: bool = False) -> None:
        self._draw = random.Random(seed)
        self._depth = depth
        self._short = short

    def schema(self, depth: int | None = None) -> dict[str, Any]:
        left = self._depth if depth is None else depth
        draw = self._draw
        leaves = [self._integer, self._number, self._string, self._enum, self._const, self._plain]
        nodes = [self._object, self._array, self._tuple, self._any_of, self._nullable, self._referring]
        if self._short:
            leaves = [self._integer, self._string, self._enum, self._const]
        make = draw.choice(leaves if left <= 0 else [*leaves, *nodes, *nodes])
        return make(left - 1)

    def _value(self, depth: int = 2) -> Any:
        draw = self._draw
        if depth > 0 and draw.random() < 0.3:
            if draw.random() < 0.5:
                return [self._value(depth - 1) for _ in range(draw.randrange(3))]
            return {draw.choice(_NAMES): self._value(depth - 1) for _ in range(draw.randrange(3))}
        number = draw.choice((0, -1, 7, 2**53, -(2**53), 0.5, -2.25, 1e-7, 123456.789))
        return draw.choice((None, True, False, number, draw.choice(_TEXTS)))

    def _bounds(self, low: Any, high: Any, kinds: tuple[str, str]) -> dict[str, Any]:
        draw, bounds = self._draw, {}
        if draw.random() < 0.6 or self._short:
            bounds[kinds[0]] = low
        if draw.random() < 0.6 or self._short:
            bounds[kinds[1]] = high
        return bounds

    def _integer(self, depth: int) -> dict[str, Any]:
        if self._draw.random() < 0.1:
            return {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}
        low = self._draw.choice((-(2**53), -1000, -7, 0, 3, 99, 10**12))
        high = low + self._draw.choice((1, 5, 1000, 10**6, 2**60))
        kinds = self._draw.choice((("minimum", "maximum"), ("exclusiveMinimum", "exclusiveMaximum")))
        if kinds[0] == "exclusiveMinimum":
            high += 1
        return {"type": "integer", **self._bounds(low, high, kinds)}

    def _number(self, depth: int) -> dict[str, Any]:
        low = self._draw.choice((-1000.5, -1, 0, 0.25, 3, 1e6))
        high = low + self._draw.choice((0.5, 1, 10.75, 1e5))
        kinds = self._draw.choice((("minimum", "maximum"), ("exclusiveMinimum", "exclusiveMaximum")))
        return {"type": "number", **self._bounds(low, high, kinds)}

    def _string(self, depth: int) -> dict[str, Any]:
        draw = self._draw
        kind = draw.randrange(4)
        if kind == 0:
            return {
                "type": "string",
                "pattern": draw.choice(_PATTERNS if self._short else _PATTERNS + _LOOSE),
            }
        if kind == 1 and not self._short:
            return {"type": "string", "format": draw.choice(_FORMATS)}
        low = draw.randrange(4)
        return {"type": "string", **self._bounds(low, low + draw.randrange(8), ("minLength", "maxLength"))}

    def _enum(self, depth: int) -> dict[str, Any]:
        return {"enum": [self._value() for _ in range(self._draw.randrange(1, 5))]}

    def _const(self, depth: int) -> dict[str, Any]:
        return {"const": self._value()}

    def _plain(self, depth: int) -> dict[str, Any]:
        return {"type": self._draw.choice(("null", "boolean", ["integer", "null"], ["boolean", "string"]))}

    def _object(self, depth: int) -> dict[str, Any]:
        draw = self._draw
        names = draw.sample(_NAMES, draw.randrange(5))
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {name: self.schema(depth) for name in names},
            "required": [name for name in names if draw.random() < 0.6],
        }
        more = 1 if self._short else draw.randrange(4)
        if more == 0:
            schema["additionalProperties"] = self.schema(0)
        elif more < 3:
            schema["additionalProperties"] = False
        return schema

    def _array(self, depth: int) -> dict[str, Any]:
        low = self._draw.randrange(3)
        limits = self._bounds(low, low + self._draw.randrange(4), ("minItems", "maxItems"))
        return {"type": "array", "items": self.schema(depth), **limits}

    def _tuple(self, depth: int) -> dict[str, Any]:
        parts = [self.schema(depth) for _ in range(self._draw.randrange(1, 4))]
        return {"type": "array", "prefixItems": parts, "items": False, "minItems": len(parts)}

    def _any_of(self, depth: int) -> dict[str, Any]:
        return {"anyOf": [self.schema(depth) for _ in range(self._draw.randrange(1, 4))]}

    def _nullable(self, depth: int) -> dict[str, Any]:
        return {"anyOf": [self.schema(depth), {"type": "null"}]}

    def _referring(self, depth: int) -> dict[str, Any]:
        return {"allOf": [self.schema(0)], "title": "one"}
