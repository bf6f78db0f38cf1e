"""Options of Ollama's requests, and the fields of OpenAI's API that they become."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import Field, field_validator

from app.schemas.common import WireModel
from app.schemas.unknown_fields import UnknownField
from engines.errors import UnsupportedFeature

_UNUSED = "Accepted and not used: a model is loaded as models.yaml says."

# Options under the names that they have in OpenAI's API and its neighbours'.
_NAMES = {
    "num_predict": "max_tokens",
    "repeat_penalty": "repetition_penalty",
    **{
        name: name
        for name in (
            "temperature",
            "top_k",
            "top_p",
            "min_p",
            "typical_p",
            "seed",
            "stop",
            "presence_penalty",
            "frequency_penalty",
            "repeat_last_n",
            "mirostat",
            "mirostat_tau",
            "mirostat_eta",
        )
    },
}
# Options that would change the answer, to the values that ask for nothing.
_REFUSED = {"tfs_z": (1,)}


class Options(WireModel):
    """Ollama's options. Those of sampling count as in OpenAI's API; unset, the model's own do."""

    temperature: float | None = Field(None, ge=0, le=2, description="0 is greedy.")
    top_k: int | None = Field(None, ge=-1, description="Keep the k most likely tokens; 0: all.")
    top_p: float | None = Field(None, ge=0, le=1, description="Keep the likeliest up to this probability.")
    min_p: float | None = Field(None, ge=0, le=1, description="Drop what is less likely than this part.")
    typical_p: float | None = Field(None, gt=0, le=1, description="Keep the most typical tokens; 1: all.")
    seed: int | None = Field(None, ge=-(2**63), lt=2**63, description="-1: another one each time.")
    stop: list[str] | str | None = Field(None, description="Strings that end the answer.")
    num_predict: int | None = Field(
        None, ge=-2, lt=2**31, description="Most tokens to generate; 0 or less: up to the context's end."
    )
    repeat_penalty: float | None = Field(None, gt=0, le=10, description="1 is off.")
    presence_penalty: float | None = Field(None, ge=-2, le=2, description="0 is off.")
    frequency_penalty: float | None = Field(None, ge=-2, le=2, description="0 is off.")
    repeat_last_n: int | None = Field(None, ge=-1, description="Tokens that penalties see; -1: all.")
    mirostat: int | None = Field(None, ge=0, le=2, description="1 or 2: Mirostat; 0 is off.")
    mirostat_tau: float | None = Field(None, ge=0, le=100, description="Of Mirostat.")
    mirostat_eta: float | None = Field(None, ge=0, le=1, description="Of Mirostat.")
    tfs_z: float | None = Field(None, description="Refused, but for 1, which is off.")
    penalize_newline: bool | None = Field(None, description="Accepted and not used, as by Ollama.")
    num_ctx: int | None = Field(None, description=f"{_UNUSED} The answer's x-enginehouse-ignored says so.")
    num_keep: int | None = Field(None, description="Accepted and not used: contexts are not shifted.")
    num_batch: Any = Field(None, description=_UNUSED)
    num_gpu: Any = Field(None, description=_UNUSED)
    num_thread: Any = Field(None, description=_UNUSED)
    main_gpu: Any = Field(None, description=_UNUSED)
    low_vram: Any = Field(None, description=_UNUSED)
    numa: Any = Field(None, description=_UNUSED)
    f16_kv: Any = Field(None, description=_UNUSED)
    use_mmap: Any = Field(None, description=_UNUSED)
    use_mlock: Any = Field(None, description=_UNUSED)
    logits_all: Any = Field(None, description=_UNUSED)
    vocab_only: Any = Field(None, description=_UNUSED)
    embedding_only: Any = Field(None, description=_UNUSED)

    # Told as ignored: whoever sets it may count on it.
    told: ClassVar[tuple[str, ...]] = ("num_ctx",)

    @field_validator("seed")
    @classmethod
    def _random(cls, value: int | None) -> int | None:
        return None if value == -1 else value

    @field_validator("num_predict")
    @classmethod
    def _limit(cls, value: int | None) -> int | None:
        return value if value is not None and value > 0 else None


def fields(options: Options | None) -> dict[str, Any]:
    """The fields of an OpenAI request that ``options`` become. Raises `UnsupportedFeature`."""
    if options is None:
        return {}
    for name, neutral in _REFUSED.items():
        value = getattr(options, name)
        if value is not None and value not in neutral:
            raise UnsupportedFeature(
                f"options.{name} is not supported: leave it out", param=f"options.{name}"
            )
    given = {theirs: getattr(options, name) for name, theirs in _NAMES.items()}
    return {name: value for name, value in given.items() if value is not None}


def untold(options: Options | None) -> Iterator[UnknownField]:
    """The options that do not count, though somebody may rely on them."""
    for name in Options.told:
        if options is not None and getattr(options, name) is not None:
            yield UnknownField(f"options.{name}", f"options.{name}")
