"""Models that requests and answers of several routes share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

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


class WireModel(BaseModel):
    """Strict: a number in quotes is a mistake of the caller, and so is a field nobody knows."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


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
