"""What requests of several resources share."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from engines.models.catalog import parse_duration

MAX_TOKENS = 2**31 - 1
MAX_CHOICES = 128
MAX_STOPS = 16
MAX_STOP_LENGTH = 1024
MAX_TOP_LOGPROBS = 20
# Tokens of an answer that was begun elsewhere: more than any model's context.
MAX_BEGUN_TOKENS = 2**22

# Engines know how many tokens there are, and refuse others.
TokenId = Annotated[int, Field(ge=0, le=2**53)]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]


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


class StreamOptions(WireModel):
    include_usage: bool = Field(False, description="Send a last chunk with the token counts.")


class BegunAnswer(WireModel):
    token_ids: list[TokenId] = Field(max_length=MAX_BEGUN_TOKENS, description="Its tokens so far.")
    created: int = Field(ge=0, le=2**53, description="When it was begun, in Unix time.")


class SamplingFields(WireModel):
    """Fields that chat and plain completions have in common."""

    model: str = Field(description="Name or alias of a served model, as in GET /v1/models.")
    temperature: float = Field(1.0, ge=0, le=2, description="0 is greedy.")
    top_p: float = Field(1.0, ge=0, le=1)
    top_k: int = Field(0, ge=-1, description="Keep the k most likely tokens; 0 or -1: all.")
    min_p: float = Field(
        0.0, ge=0, le=1, description="Drop tokens less likely than this part of the best one."
    )
    n: int = Field(1, ge=1, le=MAX_CHOICES, description="Answers to generate.")
    stop: Annotated[str, Field(max_length=MAX_STOP_LENGTH)] | list[Stop] | None = Field(
        None, description=f"Up to {MAX_STOPS} strings that end the answer."
    )
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    repetition_penalty: float = Field(1.0, gt=0, le=10, description="1 is off; sees the prompt too.")
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(
        None, description="Token id (as a string) to what is added to its logit."
    )
    min_tokens: int = Field(0, ge=0, le=MAX_TOKENS, description="Do not end before this many tokens.")
    ignore_eos: bool = Field(False, description="Never end before max_tokens.")
    stream: bool = False
    stream_options: StreamOptions | None = None
    keep_alive: KeepAlive = None
    continuation: BegunAnswer | None = Field(
        None,
        description="Goes on with an answer that was begun elsewhere: its events are only those that are "
        "still to come. Only for streamed answers with n=1, without tools, structured output, logprobs or "
        "reasoning.",
    )
    priority: int = Field(
        0, ge=-(2**31), lt=2**31, description="Of requests that wait, those with the lowest go first."
    )
    user: str | None = Field(None, description="Accepted and not used.")

    @field_validator("stop")
    @classmethod
    def _few_stops(cls, value: str | list[str] | None) -> str | list[str] | None:
        if isinstance(value, list) and len(value) > MAX_STOPS:
            raise ValueError(f"at most {MAX_STOPS} stop strings")
        return value

    @field_validator("logit_bias")
    @classmethod
    def _token_ids(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        for key in value or {}:
            if not (key.isascii() and key.isdigit() and len(key) < 12):
                raise ValueError(f"{key!r} is not a token id")
        return value

    @model_validator(mode="after")
    def _stream_options_need_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is only allowed when stream is true")
        return self

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings; an empty string stops nothing."""
        if self.stop is None:
            return ()
        return tuple(s for s in ([self.stop] if isinstance(self.stop, str) else self.stop) if s)


class PromptTokensDetails(BaseModel):
    cached_tokens: int = Field(description="Prompt tokens found in the prefix cache.")


class UsageInfo(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class ErrorInfo(BaseModel):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorEnvelope(BaseModel):
    """Every error's body."""

    error: ErrorInfo


FinishReason = Literal["stop", "length"]

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
    503: {
        "model": ErrorEnvelope,
        "description": "The model is loading or nothing serves it; see Retry-After",
    },
}
