"""What an answer must look like, from the wire's fields."""

from __future__ import annotations

import json
from typing import Any

from app.schemas.structure import (
    JsonObjectFormat,
    JsonSchemaFormat,
    ResponseFormat,
    StructuredOutputs,
)
from engines.base import Structure


def json_schema(schema: dict[str, Any]) -> Structure:
    return Structure("json_schema", json.dumps(schema))


def of_response_format(format: ResponseFormat | None) -> Structure | None:
    match format:
        case JsonSchemaFormat():
            return json_schema(format.json_schema.schema_)
        case JsonObjectFormat():
            return Structure("json_object")
        case _:
            return None


def of_structured_outputs(wanted: StructuredOutputs | None) -> Structure | None:
    if wanted is None:
        return None
    if wanted.json_ is not None:
        return json_schema(wanted.json_)
    if wanted.choice is not None:
        return Structure("choice", choices=tuple(wanted.choice))
    if wanted.regex is not None:
        return Structure("regex", wanted.regex)
    return Structure("grammar", wanted.grammar or "")
