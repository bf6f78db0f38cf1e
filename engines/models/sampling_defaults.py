"""The sampling that requests get which do not say otherwise: fields that catalog and models both set."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict

MAX_STOPS = 16
MAX_STOP_LENGTH = 1024

STRICT = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)
"""A number in quotes is a mistake, and so is a field nobody knows."""


def one_or_more(value: object) -> object:
    """A text alone is short for a list of one."""
    return [value] if isinstance(value, str) else value


StopText = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
# YAML has lists; strictness would want tuples.
Stops = Annotated[
    tuple[StopText, ...], Strict(False), BeforeValidator(one_or_more), Field(max_length=MAX_STOPS)
]


class SamplingDefaults(BaseModel):
    """Sampling of requests that do not say otherwise; None leaves it to whoever is asked next."""

    model_config = STRICT

    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    min_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    max_tokens: int | None = Field(None, ge=1, le=2**31 - 1)
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    stop: Stops | None = None
