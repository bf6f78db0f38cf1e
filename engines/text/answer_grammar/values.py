"""Values of JSON schemas in notations other than JSON: rules for a grammar."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engines.text.answer_grammar.lark import Lark, choice, literal
from engines.text.grammar.sources import json_in_lark

_DEFINITIONS = ("$defs", "definitions")
_ANY_NUMBER = {"type": "number"}
# Arrays that a schema does not bound, which a small model may never end.
MOST_ITEMS = 64


@dataclass(frozen=True, slots=True)
class Schema:
    """A JSON schema within a ``root``, where its references are looked up."""

    value: Mapping[str, Any]
    root: Mapping[str, Any]
    is_strict: bool

    def of(self, value: Any) -> Schema:
        return Schema(value if isinstance(value, Mapping) else {}, self.root, self.is_strict)

    def resolved(self) -> Schema:
        """The schema behind the references; an empty one if there is none."""
        found = self
        for _ in range(8):
            path = found.value.get("$ref")
            if not isinstance(path, str):
                return found
            node: Any = self.root
            for part in path.removeprefix("#").split("/")[1:]:
                part = part.replace("~1", "/").replace("~0", "~")
                node = node.get(part) if isinstance(node, Mapping) else None
            found = self.of(node)
        return self.of({})

    @property
    def types(self) -> frozenset[str]:
        """The types that a value may have; empty: any."""
        found = self.resolved().value
        if "const" in found:
            return frozenset({_type_of(found["const"])})
        if isinstance(found.get("enum"), list):
            return frozenset(map(_type_of, found["enum"]))
        ways = found.get("anyOf") or found.get("oneOf")
        if isinstance(ways, list):
            types = [self.of(way).types for way in ways]
            return frozenset() if frozenset() in types else frozenset().union(*types)
        kind = found.get("type")
        return frozenset([kind] if isinstance(kind, str) else kind if isinstance(kind, list) else ())

    @property
    def texts(self) -> list[str] | None:
        """All values that there may be and that are text; None: any text."""
        found = self.resolved().value
        values = [found["const"]] if "const" in found else found.get("enum")
        return [each for each in values if isinstance(each, str)] if isinstance(values, list) else None

    def json(self) -> str:
        """The rule's body for a value in JSON."""
        definitions = {name: self.root[name] for name in _DEFINITIONS if name in self.root}
        return json_in_lark({**definitions, **self.value}, is_strict=self.is_strict)

    def properties(self) -> list[tuple[str, Schema, bool]]:
        """Each with its name and whether there must be one."""
        found = self.resolved()
        properties, required = found.value.get("properties"), found.value.get("required")
        if not isinstance(properties, Mapping):
            return []
        needed = required if isinstance(required, list) else []
        return [(name, found.of(value), name in needed) for name, value in properties.items()]


def _type_of(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


@dataclass(slots=True)
class Notation:
    """A way to write values. ``text`` gives the body for any text, ``literal`` for a certain one, ``key`` for
    a property's name with what stands behind it; ``any_key`` is the body for any name."""

    lark: Lark
    text: Callable[[], str]
    literal: Callable[[str], str]
    key: Callable[[str], str]
    any_key: str
    words: Mapping[Any, str] = field(default_factory=lambda: {True: "true", False: "false", None: "null"})
    comma: str = '","'
    _known: dict[int, str] = field(default_factory=dict)
    _any: str = ""

    def value(self, schema: Schema) -> str:
        """The body for a value of ``schema``."""
        found = schema.resolved()
        if not found.value:
            return self.anything(found)
        known = self._known.get(id(found.value))
        if known is None:
            name, define = self.lark.reserve()
            self._known[id(found.value)] = known = name
            define(self._value(found))
        return known

    def anything(self, schema: Schema) -> str:
        if not self._any:
            name, define = self.lark.reserve()
            self._any = name
            items = f"({name} ({self.comma} {name})*)?"
            pairs = f"({self.any_key} {name} ({self.comma} {self.any_key} {name})*)?"
            number = schema.of(_ANY_NUMBER).json()
            define(choice([self.text(), *self._words(), number, f'"[" {items} "]"', f'"{{" {pairs} "}}"']))
        return self._any

    def _words(self) -> list[str]:
        return [literal(word) for word in self.words.values()]

    def _value(self, schema: Schema) -> str:
        value = schema.value
        if "const" in value:
            return self._literal(value["const"])
        if isinstance(value.get("enum"), list) and value["enum"]:
            return choice(map(self._literal, value["enum"]))
        ways = value.get("anyOf") or value.get("oneOf")
        if isinstance(ways, list) and ways:
            return choice(self.value(schema.of(way)) for way in ways)
        kinds = value.get("type")
        if isinstance(kinds, list) and kinds:
            return choice(self._typed(schema, kind) for kind in kinds)
        if isinstance(kinds, str):
            return self._typed(schema, kinds)
        return self._object(schema) if value.get("properties") else self.anything(schema)

    def _typed(self, schema: Schema, kind: str) -> str:
        match kind:
            case "string":
                return self.text()
            case "boolean":
                return choice([literal(self.words[True]), literal(self.words[False])])
            case "null":
                return literal(self.words[None])
            case "number" | "integer":
                return Schema({**schema.value, "type": kind}, schema.root, schema.is_strict).json()
            case "array":
                return self._array(schema)
            case "object":
                return self._object(schema)
        return self.anything(schema)

    def _literal(self, value: Any) -> str:
        if isinstance(value, str):
            return self.literal(value)
        if value is None or isinstance(value, bool):
            return literal(self.words[value])
        if isinstance(value, list):
            return f'"[" {f" {self.comma} ".join(map(self._literal, value))} "]"'
        if isinstance(value, Mapping):
            pairs = [f"{self.key(key)} {self._literal(each)}" for key, each in value.items()]
            return f'"{{" {f" {self.comma} ".join(pairs)} "}}"'
        return literal(json.dumps(value))

    def _array(self, schema: Schema) -> str:
        first = schema.value.get("prefixItems")
        if isinstance(first, list) and first:
            return f'"[" {f" {self.comma} ".join(self.value(schema.of(each)) for each in first)} "]"'
        item = self.value(schema.of(schema.value.get("items")))
        least, most = schema.value.get("minItems"), schema.value.get("maxItems")
        least = least if isinstance(least, int) else 0
        most = most if isinstance(most, int) else max(MOST_ITEMS, least)
        if most == 0:
            return '"[" "]"'
        some = f"{item} ({self.comma} {item}){{{max(0, least - 1)},{most - 1}}}"
        return f'"[" {some} "]"' if least else f'"[" ({some})? "]"'

    def _object(self, schema: Schema) -> str:
        properties = schema.properties()
        if properties:
            return f'"{{" {self.pairs(properties)} "}}"'
        if schema.value.get("additionalProperties") is False:
            return '"{" "}"'
        value = self.value(schema.of(schema.value.get("additionalProperties")))
        return f'"{{" ({self.any_key} {value} ({self.comma} {self.any_key} {value})*)? "}}"'

    def pairs(self, properties: Sequence[tuple[str, Schema, bool]]) -> str:
        """Properties in order, commas between those that are there."""
        first, others = "", ""  # the rest, if none was there yet, and if some was
        for name, schema, needed in reversed(properties):
            pair = f"{self.key(name)} {self.value(schema)}"
            begin, follow = f"{pair} {others}", f"{self.comma} {pair} {others}"
            if needed:
                first, others = self.lark.rule(begin), self.lark.rule(follow)
            else:
                first = self.lark.rule(f"({begin} | {first})" if first else f"({begin})?")
                others = self.lark.rule(f"({follow} | {others})" if others else f"({follow})?")
        return first
