"""Rules for calls of functions, in each shape of a declared format."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from engines.text.answer_grammar.lark import Lark, choice, literal
from engines.text.answer_grammar.values import Notation, Schema
from engines.text.answers.format import (
    ArgumentsCall,
    CallShape,
    ChannelCall,
    Format,
    JsonCall,
    NamedCall,
    NotationCall,
    PythonCall,
    TaggedCall,
)

_SPACE = '" "?'
_NEWLINE = '"\\n"?'
# A string of Python that is one of JSON too: some escapes mean the same in both.
_PYTHON_TEXT = r'"(?:[^"\\\x00-\x1f]|\\[nt"\\])*"'
_ANY_KEY = "[A-Za-z_][A-Za-z0-9_-]{0,63}"


class CallRules:
    """Writes into ``lark`` the rules for calls in ``format``."""

    def __init__(self, format: Format, lark: Lark) -> None:
        self._format = format
        self._lark = lark

    def call(self, name: str, parameters: Schema) -> str:
        """The rule of a call of the function ``name``, without the marks around it."""
        return self._lark.rule(self._body(self._format.call, name, parameters))

    def _body(self, shape: CallShape, name: str, parameters: Schema) -> str:
        match shape:
            case JsonCall():
                return self._json(shape, name, parameters)
            case ArgumentsCall():
                return parameters.json()
            case NamedCall():
                return self._named(shape, name, parameters)
            case TaggedCall():
                return self._tagged(shape, name, parameters)
            case NotationCall():
                pairs = self._notation(shape.quote).pairs(parameters.properties())
                return f'{self._lark.text(f"{shape.before_name}{name}")} "{{" {pairs} "}}"'
            case PythonCall():
                return f'{literal(f"{name}(")} {self._python().pairs(parameters.properties())} ")"'
            case ChannelCall():
                return self._channel(shape, name, parameters)

    def _json(self, shape: JsonCall, name: str, parameters: Schema) -> str:
        head = [literal(f'{{"{shape.name_keys[0]}":'), _SPACE, literal(f"{json.dumps(name)},"), _SPACE]
        keys = [literal(f'"{shape.argument_keys[0]}":'), _SPACE, parameters.json(), '"}"']
        return " ".join([*head, *keys])

    def _named(self, shape: NamedCall, name: str, parameters: Schema) -> str:
        number = f" {self._lark.regex('0|[1-9][0-9]{0,2}')}" if shape.name_in_id else ""
        told = f"functions.{name}:" if shape.name_in_id else name
        before = self._lark.text(f"{shape.before_name}{told}")
        arguments = self._lark.text(shape.before_arguments)
        return f"{before}{number} {arguments} {parameters.json()} {self._lark.text(shape.after_arguments)}"

    def _channel(self, shape: ChannelCall, name: str, parameters: Schema) -> str:
        text = self._lark.text
        to, kind = f"{shape.recipient}{name}", f" {shape.constrain}json"
        first = text(f" {to}{shape.channel}commentary{kind}{shape.message}")
        usual = text(f"{shape.channel}commentary {to}{kind}{shape.message}")
        return f"{choice([usual, first])} {parameters.json()}"

    # -- tags --------------------------------------------------------------------------------------

    def _tagged(self, shape: TaggedCall, name: str, parameters: Schema) -> str:
        between = f"{literal(shape.between)}?" if shape.between else ""
        text = self._lark.text
        told = f' {shape.name_attribute}="{name}"' if shape.name_attribute else name
        head = [between if shape.before_name else "", text(shape.before_name + told)]
        if shape.name_attribute:
            head.append(
                self._lark.regex(' index="[1-9][0-9]{0,2}"') if shape.type_attribute == "type" else ""
            )
        body = [*head, text(shape.after_name), between]
        properties = parameters.properties()
        for key, schema, needed in properties:
            each = f"({self._parameter(shape, key, schema)} {between})"
            body.append(each if needed else f"{each}?")
        if not properties and parameters.value.get("additionalProperties", True):
            body.append(self._others(shape, parameters.of({}), between))
        after = text(shape.after_parameters)
        return " ".join([*body, after, between if after else ""])

    def _parameter(self, shape: TaggedCall, key: str, schema: Schema) -> str:
        types = schema.types
        ways = []
        if not types or "string" in types:
            ways.append(f"{self._tag(shape, key, 'string')} {self._raw(shape, schema)}")
            if not shape.type_attribute and schema.texts is None:
                return ways[0]  # any text, be it that of another value
        if types != {"string"}:
            others, kinds = _without_text(schema), self._kinds(shape, types - {"string"})
            ways += [f"{self._tag(shape, key, kind)} {self._in_json(shape, others, kind)}" for kind in kinds]
        return choice(ways)

    def _kinds(self, shape: TaggedCall, types: frozenset[str]) -> list[str]:
        """What a tag calls the types of a value that is no text."""
        if shape.type_attribute != "type":
            return [""]
        return sorted(types) or ["number", "boolean", "object", "array", "null"]

    def _tag(self, shape: TaggedCall, key: str, kind: str) -> str:
        text = self._lark.text
        if not shape.key_attribute:
            return f"{text(shape.before_key + key + shape.after_key)} {self._before_value(shape)}"
        told = f' {shape.key_attribute}="{key}"'
        if shape.type_attribute == "string":
            told += f' string="{"true" if kind == "string" else "false"}"'
        elif shape.type_attribute:
            told += f' {shape.type_attribute}="{kind}"'
        return f"{text(shape.before_key + told + shape.after_key)} {self._before_value(shape)}"

    def _before_value(self, shape: TaggedCall) -> str:
        if not shape.before_value:
            return ""
        return f"{_NEWLINE if shape.between else ''} {self._lark.text(shape.before_value)} "

    def _raw(self, shape: TaggedCall, schema: Schema) -> str:
        lead, end = ("\n", f"\n{shape.after_value}") if shape.lines else ("", shape.after_value)
        before = f"{literal(lead)} " if lead else ""
        if (texts := schema.texts) is not None:
            return f"{before}{choice(self._lark.text(each) for each in texts)} {self._lark.text(end)}"
        return before + self._lark.until(end)

    def _in_json(self, shape: TaggedCall, schema: Schema, kind: str) -> str:
        line = f"{literal(chr(10))} " if shape.lines else ""
        if kind and "type" in schema.value:
            schema = schema.of({**schema.value, "type": kind})
        return f"{line}{schema.json()} {line}{self._lark.text(shape.after_value)}"

    def _others(self, shape: TaggedCall, schema: Schema, between: str) -> str:
        """Parameters of whatever name."""
        if shape.key_attribute:
            return ""
        text = self._lark.text
        key = f"{text(shape.before_key)} {self._lark.regex(_ANY_KEY)} {text(shape.after_key)}"
        value = f"{self._before_value(shape)} {self._raw(shape, schema)}"
        return f"({key} {value} {between}){{0,8}}"

    # -- notations ---------------------------------------------------------------------------------

    def _notation(self, quote: str) -> Notation:
        mark = self._lark.text(quote)
        return Notation(
            self._lark,
            text=lambda: f"{mark} {self._lark.until(quote)}",
            literal=lambda text: f"{mark} {literal(text) if text else ''} {mark}",
            key=lambda key: literal(f"{key}:"),
            any_key=f'{self._lark.regex(_ANY_KEY)} ":"',
        )

    def _python(self) -> Notation:
        text = self._lark.regex(_PYTHON_TEXT)
        inner = Notation(
            self._lark,
            text=lambda: text,
            literal=lambda text: literal(repr_of(text)),
            key=lambda key: f"{literal(repr_of(key) + ':')} {_SPACE}",
            any_key=f'{text} ":" {_SPACE}',
            words={True: "True", False: "False", None: "None"},
            comma=f'"," {_SPACE}',
        )
        return _Arguments(inner)


class _Arguments(Notation):
    """Python's arguments by name, whose values are those of ``inner``."""

    def __init__(self, inner: Notation) -> None:
        self._inner = inner
        self.lark, self.comma = inner.lark, inner.comma
        self.key: Callable[[str], str] = lambda key: literal(f"{key}=")

    def value(self, schema: Schema) -> str:
        return self._inner.value(schema)


def repr_of(text: str) -> str:
    """``text`` as a string of Python that has no other escapes than JSON's."""
    return json.dumps(text, ensure_ascii=False)


def _without_text(schema: Schema) -> Schema:
    """Those of the values that are no text, as far as a schema says so plainly."""
    value: Mapping[str, Any] = schema.resolved().value
    if not schema.types:
        kinds = ["number", "boolean", "object", "array", "null"]
        return schema.of({**value, "type": kinds})
    if isinstance(value.get("type"), list):
        return schema.of({**value, "type": [kind for kind in value["type"] if kind != "string"]})
    for way in ("anyOf", "oneOf"):
        if isinstance(value.get(way), list):
            kept = [each for each in value[way] if "string" not in schema.of(each).types]
            return schema.of({**value, way: kept})
    if isinstance(value.get("enum"), list):
        return schema.of({**value, "enum": [each for each in value["enum"] if not isinstance(each, str)]})
    return schema
