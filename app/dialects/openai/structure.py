"""Fields that say what an answer must look like, and the structure that they ask for."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from app.schemas.common import WireModel
from engines.base import Structure
from engines.errors import RequestError
from engines.text.answers.tool_use import json_schema

MAX_CHOICE_TEXTS = 1000
# Objects and arrays within each other: what compiles a schema recurses as deep as it nests.
MAX_NESTING = 48


def _check_json(value: dict[str, Any]) -> dict[str, Any]:
    """``value`` if it can be written as JSON and does not nest too deep. Raises `ValueError`."""
    level: list[Any] = [value]
    for _ in range(MAX_NESTING + 1):
        children: list[Any] = []
        for node in level:
            if isinstance(node, dict):
                children += node.values()
            elif isinstance(node, list):
                children += node
            elif isinstance(node, float) and not math.isfinite(node):
                raise ValueError("NaN and Infinity are not JSON")
        if not children:
            return value
        level = children
    raise ValueError(f"objects and arrays may nest {MAX_NESTING} levels deep, not more")


def check_text(value: str) -> str:
    """``value`` if it can be written as UTF-8. Raises `ValueError`."""
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("half of a surrogate pair is no character") from None
    return value


def _parse_text(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError("this text is no JSON") from None


JsonObject = Annotated[dict[str, Any], AfterValidator(_check_json)]
# Some clients write it as text.
JsonSchema = Annotated[JsonObject, BeforeValidator(_parse_text, json_schema_input_type=dict[str, Any] | str)]
Text = Annotated[str, Field(min_length=1), AfterValidator(check_text)]
Texts = Annotated[list[Text], Field(fail_fast=True, min_length=1, max_length=MAX_CHOICE_TEXTS)]
# What functions and schemas may be called.
Identifier = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class NamedSchema(WireModel):
    name: Identifier = Field(description="What the schema is called.")
    schema_: JsonObject = Field(alias="schema", description="The JSON schema.")
    description: str | None = Field(None, description="What it is for.")
    strict: bool | None = Field(
        None,
        description="true: a schema that cannot be enforced in every part is refused. Otherwise such parts "
        "are left aside.",
    )


class TextFormat(WireModel):
    type: Literal["text"]


class JsonObjectFormat(WireModel):
    type: Literal["json_object"]
    schema_: JsonObject | None = Field(
        None, alias="schema", description="A JSON schema, as llama-server takes it."
    )


class JsonSchemaFormat(WireModel):
    type: Literal["json_schema"]
    json_schema: NamedSchema = Field(description="The schema, and its name.")


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class StructuredOutputs(WireModel):
    """The structure of an answer, in vLLM's words: exactly one of these fields."""

    json_: JsonObject | None = Field(None, alias="json", description="A JSON schema.")
    regex: Text | None = Field(None, description="A regular expression.")
    choice: Texts | None = Field(None, description="The answer is one of these texts.")
    grammar: Text | None = Field(None, description="A grammar: Lark, or GBNF (told by its `::=`).")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(value is not None for value in (self.json_, self.regex, self.choice, self.grammar)) != 1:
            raise ValueError("give exactly one of json, regex, choice and grammar")
        return self


def of_response_format(format: ResponseFormat | None) -> Structure | None:
    match format:
        case JsonSchemaFormat():
            return json_schema(format.json_schema.schema_, strict=format.json_schema.strict is True)
        case JsonObjectFormat(schema_=schema):
            return Structure("json_object") if schema is None else json_schema(schema, strict=False)
        case _:
            return None


def only_one(asked: Mapping[str, Structure | None]) -> tuple[Structure, str] | None:
    """The one structure that a request asks for, and the field that does. Raises `RequestError` for more."""
    found = [(structure, name) for name, structure in asked.items() if structure is not None]
    if len(found) > 1:
        raise exclusive(found[0][1], found[1][1])
    return found[0] if found else None


def exclusive(first: str, second: str) -> RequestError:
    """For two fields of which one request has one at most."""
    return RequestError(f"{first} and {second} exclude each other", param=first)


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
