"""Fields that chat and text completions have in common."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, field_validator, model_validator

from app.schemas.common import KeepAlive, WireModel
from engines.base import Sampling
from engines.errors import RequestError
from engines.models.catalog import SamplingDefaults

MAX_TOKENS = 2**31 - 1
MAX_CHOICES = 128
MAX_STOPS = 16
MAX_STOP_LENGTH = 1024
MAX_BIASES = 1024
MAX_TOP_LOGPROBS = 20

# A limit has several names: setting any is saying something.
_LIMITS = frozenset({"max_tokens", "max_completion_tokens", "max_output_tokens"})

# Of fields whose defaults depend on the model, as GET /v1/models/{model}/status tells them.
_UNSET = "Unset: as the catalog or the model says."
_OF_THE_MODEL: dict[str, Any] = {"json_schema_extra": lambda schema: schema.pop("default", None)}

# Engines know how many tokens there are, and refuse others.
TokenId = Annotated[int, Field(ge=0, le=2**53)]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
Stops = Annotated[list[Stop], Field(fail_fast=True)]
# Of `max_tokens`: clients of llama-server and LM Studio write -1 where there is no limit.
MINUS_ONE_IS_NONE = BeforeValidator(lambda value: None if value == -1 else value)
FinishReason = Literal["stop", "length"]


class StreamOptions(WireModel):
    include_usage: bool = Field(False, description="Send a last chunk with the token counts.")
    continuous_usage_stats: bool = Field(
        False, description="With include_usage: send the token counts so far with every chunk."
    )
    include_obfuscation: Any = Field(None, description="Accepted and not used.")


class ServedFields(WireModel):
    """Fields of a request that say how it is served, whatever is asked of the model."""

    model: str = Field(description="Name or alias of a served model, as in GET /v1/models.")
    keep_alive: KeepAlive = None
    priority: int = Field(
        0, ge=-(2**31), lt=2**31, description="Of requests that wait, those with the lowest go first."
    )
    user: Any = Field(None, description="Accepted and not used.")


class StreamedFields(ServedFields):
    """Fields of a request whose answer may come in pieces."""

    stream: bool = Field(False, description="Send the answer as server-sent events while it is generated.")
    stream_options: StreamOptions | None = Field(None, description="Only with `stream`.")

    @model_validator(mode="after")
    def _stream_options_need_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is only allowed when stream is true")
        return self

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def continuous_usage(self) -> bool:
        options = self.stream_options
        return options is not None and options.include_usage and options.continuous_usage_stats


class DrawingFields(WireModel):
    """Fields of a request that say how tokens are drawn, whatever API it came by."""

    temperature: float = Field(1.0, ge=0, le=2, description=f"0 is greedy. {_UNSET}", **_OF_THE_MODEL)
    top_p: float = Field(1.0, ge=0, le=1, description=_UNSET, **_OF_THE_MODEL)
    top_k: int = Field(
        0, ge=-1, description=f"Keep the k most likely tokens; 0 or -1: all. {_UNSET}", **_OF_THE_MODEL
    )
    min_p: float = Field(
        0.0,
        ge=0,
        le=1,
        description=f"Drop tokens less likely than this part of the best one. {_UNSET}",
        **_OF_THE_MODEL,
    )
    seed: int | None = Field(
        None,
        ge=-(2**63),
        le=2**63 - 1,
        description="The same seed, prompt and settings give the same answer (docs/repeatability.md).",
    )
    presence_penalty: float = Field(
        0.0, ge=-2, le=2, description="Lowers what was said before, once; 0 is off."
    )
    frequency_penalty: float = Field(
        0.0, ge=-2, le=2, description="Lowers what was said before, each time that it was; 0 is off."
    )
    repetition_penalty: float = Field(
        1.0, gt=0, le=10, description=f"1 is off; sees the prompt too. {_UNSET}", **_OF_THE_MODEL
    )
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(
        None, max_length=MAX_BIASES, description="Token id (as a string) to what is added to its logit."
    )
    min_tokens: int = Field(0, ge=0, le=MAX_TOKENS, description="Do not end before this many tokens.")
    ignore_eos: bool = Field(False, description="Never end before max_tokens.")

    @field_validator("logit_bias")
    @classmethod
    def _token_ids(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        for key in value or {}:
            if not (key.isascii() and key.isdigit() and len(key) < 12):
                raise ValueError(f"{key!r} is not a token id")
        return value

    def sampling(self) -> Sampling:
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=max(self.top_k, 0),
            min_p=self.min_p,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            repetition_penalty=self.repetition_penalty,
            logit_bias=tuple((int(token), bias) for token, bias in (self.logit_bias or {}).items()),
            seed=self.seed,
        )


class SamplingFields(StreamedFields, DrawingFields):
    """Fields of a request that say how tokens are drawn, and where an answer ends."""

    n: int = Field(1, ge=1, le=MAX_CHOICES, description="Answers to generate.")
    stop: Annotated[str, Field(max_length=MAX_STOP_LENGTH)] | Stops | None = Field(
        None, description=f"Up to {MAX_STOPS} strings that end the answer."
    )

    @field_validator("stop")
    @classmethod
    def _few_stops(cls, value: str | list[str] | None) -> str | list[str] | None:
        if isinstance(value, list) and len(value) > MAX_STOPS:
            raise ValueError(f"at most {MAX_STOPS} stop strings")
        return value

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings; an empty string stops nothing."""
        if self.stop is None:
            return ()
        return tuple(s for s in ([self.stop] if isinstance(self.stop, str) else self.stop) if s)


Body = TypeVar("Body", bound=DrawingFields)


def with_defaults(body: Body, defaults: SamplingDefaults) -> tuple[Body, dict[str, Any]]:
    """``body``, where the client left a field out, as ``defaults`` says; and those fields, for backends that
    know neither the catalog nor the model's files."""
    if not defaults.model_fields_set:
        return body, {}
    given = body.model_fields_set
    update: dict[str, Any] = {}
    for name in defaults.model_fields_set - given:
        value = getattr(defaults, name)
        if value is None or (name == "max_tokens" and given & _LIMITS):
            continue
        update[name] = list(value) if name == "stop" else value
    return (body.model_copy(update=update) if update else body), update


def check_min_tokens(body: DrawingFields, limit: int | None) -> None:
    """Raise `RequestError` if an answer must be longer than it may."""
    if limit is not None and body.min_tokens > limit:
        raise RequestError("min_tokens must not exceed max_tokens", param="min_tokens")


class PromptTokenLogprob(BaseModel):
    logprob: float
    rank: int = Field(description="Among all tokens; 1 is the most likely.")
    decoded_token: str


PromptLogprobs = list[dict[str, PromptTokenLogprob] | None]
"""For each token of a prompt the log probabilities by token id; null for the first."""


class PromptTokensDetails(BaseModel):
    cached_tokens: int = Field(description="Prompt tokens found in the prefix cache.")


class CompletionTokensDetails(BaseModel):
    reasoning_tokens: int


class UsageInfo(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails
