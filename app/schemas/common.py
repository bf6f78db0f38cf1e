"""Models that requests and answers of several routes share."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from engines.models.catalog import parse_duration


def _keep_alive(value: Any) -> float | None:
    return None if value is None else parse_duration(value)


KeepAlive = Annotated[
    float | None,
    BeforeValidator(_keep_alive, json_schema_input_type=str | float | None),
    Field(
        description="How long the model stays loaded after its last use: seconds or a duration such as `5m`; "
        "-1: for good; 0: not at all. Unset: as before.",
    ),
]


def document_known_fields(schema: dict[str, Any]) -> None:
    """Examples are made from the schema, and should have no fields that nobody knows."""
    if schema.get("additionalProperties") is True:
        del schema["additionalProperties"]


class WireModel(BaseModel):
    """Base of what clients send: strict about types, liberal about what is there and what is not.

    A number in quotes is a mistake of the caller. A null says nothing where a field may be left out: client
    libraries send it for what nobody set. Only in the fields ``null_counts`` it is a value of its own. A
    field that nobody knows is kept apart, see `app.schemas.unknown_fields`. ``nested`` are the fields that
    may hold further such models, each with its name on the wire.
    """

    model_config = ConfigDict(
        strict=True, extra="allow", allow_inf_nan=False, json_schema_extra=document_known_fields
    )

    null_counts: ClassVar[frozenset[str]] = frozenset()
    nested: ClassVar[tuple[tuple[str, str], ...]] = ()
    _optional: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        fields = cls.model_fields.items()
        optional = (field.alias or name for name, field in fields if not field.is_required())
        cls._optional = frozenset(optional) - cls.null_counts
        cls.nested = tuple((name, field.alias or name) for name, field in fields if _nests(field.annotation))

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        if not isinstance(data, dict) or None not in data.values():
            return data
        return {name: value for name, value in data.items() if value is not None or name not in cls._optional}


def _nests(annotation: Any) -> bool:
    if isinstance(annotation, type) and not get_args(annotation):
        return issubclass(annotation, WireModel)
    return any(map(_nests, get_args(annotation)))


class StrictModel(WireModel):
    """Base of what operators send to manage the server: a field nobody knows is a mistake, often a typo."""

    model_config = ConfigDict(extra="forbid")


class ErrorInfo(BaseModel):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorEnvelope(BaseModel):
    """Every error's body."""

    error: ErrorInfo


ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    400: {
        "model": ErrorEnvelope,
        "description": "The request is malformed, too long or asks for what the model lacks",
    },
    401: {"model": ErrorEnvelope, "description": "No key or a wrong one"},
    404: {"model": ErrorEnvelope, "description": "No such model"},
    403: {"model": ErrorEnvelope, "description": "The key or the path is not allowed to do this"},
    409: {"model": ErrorEnvelope, "description": "The model is in use, pinned, or loaded otherwise"},
    413: {"model": ErrorEnvelope, "description": "The body is too large"},
    429: {"model": ErrorEnvelope, "description": "Rate limit reached or queue full; see Retry-After"},
    500: {"model": ErrorEnvelope, "description": "The engine failed"},
    502: {"model": ErrorEnvelope, "description": "An upstream answered with what is of no use"},
    508: {
        "model": ErrorEnvelope,
        "description": "Only servers that the request came through have the model",
    },
    503: {
        "model": ErrorEnvelope,
        "description": "The model is loading or nothing serves it; see Retry-After",
    },
}
