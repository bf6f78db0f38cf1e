"""The functions that a model may call, and the types of their parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_TYPE_NAMES: dict[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    list: "array",
    dict: "object",
    type(None): "null",
}
# References to references, and unions in unions, that are followed.
_DEEPEST = 8
_NAMESPACE = "functions."


class Functions:
    """The functions of one request, from their definitions in OpenAI's form."""

    def __init__(self, definitions: Iterable[Mapping[str, Any]]) -> None:
        functions = (each.get("function", each) for each in definitions)
        self._parameters: dict[str, Any] = {each["name"]: each.get("parameters") for each in functions}

    def __bool__(self) -> bool:
        return bool(self._parameters)

    def find(self, name: str) -> str | None:
        """The function that a model means by ``name``, if there is one."""
        if name in self._parameters:
            return name
        short = name.removeprefix(_NAMESPACE)
        return short if short in self._parameters else None

    def types(self, name: str, parameter: str) -> frozenset[str]:
        """The JSON types that a parameter may have; none if its schema says nothing."""
        schema = self._parameters.get(name)
        if not isinstance(schema, Mapping):
            return frozenset()
        own = _mapping(schema.get("properties")).get(parameter, schema.get("additionalProperties"))
        return frozenset(_types(own, schema, _DEEPEST))


def type_of(value: Any) -> str:
    """The JSON type of ``value``."""
    return _TYPE_NAMES[type(value)]


def _types(schema: Any, root: Mapping[str, Any], depth: int) -> Iterable[str]:
    if not isinstance(schema, Mapping) or not depth:
        return
    given = schema.get("type")
    if given is not None:
        yield from (given,) if isinstance(given, str) else (each for each in given if isinstance(each, str))
        return
    if isinstance(reference := schema.get("$ref"), str):
        yield from _types(_resolved(reference, root), root, depth - 1)
    for union in ("anyOf", "oneOf", "allOf"):
        options = schema.get(union)
        for option in options if isinstance(options, list) else ():
            yield from _types(option, root, depth - 1)
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    yield from (type_of(value) for value in values or () if type(value) in _TYPE_NAMES)
    yield from (kind for key, kind in (("properties", "object"), ("items", "array")) if key in schema)


def _resolved(reference: str, root: Mapping[str, Any]) -> Any:
    found: Any = root
    for part in reference.removeprefix("#").split("/")[1:]:
        found = _mapping(found).get(part.replace("~1", "/").replace("~0", "~"))
    return found


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
