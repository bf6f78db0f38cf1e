"""The catalog's schema. Every field is described in ``models/models.yaml``."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    Strict,
    model_validator,
)

from engines.models.catalog.durations import parse_duration
from engines.models.catalog.engine_name import EngineName
from engines.models.purpose import Pooling
from engines.registry import AUTO
from engines.text.answers.formats import BY_NAME
from engines.text.ranking.pair_template import is_for_pairs

MAX_NAME = 200
MAX_WEIGHT = 1000
MAX_RENAMED = 1000
MAX_STOPS = 16
MAX_TEMPLATE = 64 * 1024
MAX_STOP_LENGTH = 1024
# A name that DEFAULT_MODEL takes for something else.
RESERVED_NAME = "auto"

_REPOSITORY_PART = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}"


def check_name(value: str) -> str:
    """``value`` if it can be a model's name. Raises `ValueError`."""
    if not 1 <= len(value) <= MAX_NAME:
        raise ValueError(f"a name has 1 to {MAX_NAME} characters")
    if " " in value or not value.isprintable():  # of all spaces only this one is printable
        raise ValueError("a name has no spaces and no control characters")
    if value.lower() == RESERVED_NAME:
        raise ValueError(f"{RESERVED_NAME!r} is no name: it means the first model there is")
    return value


def _relative(value: str) -> str:
    parts = value.replace("\\", "/").split("/")
    if value.startswith(("/", "~")) or ".." in parts or ":" in parts[0] or not value.isprintable():
        raise ValueError("give a path relative to MODEL_BASE_PATH, without ..")
    return value


def _known_format(value: str) -> str:
    if value not in BY_NAME:
        raise ValueError(f"there is no such format: give one of {', '.join(sorted(BY_NAME))}")
    return value


def _one_or_more(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _same_names(value: object) -> object:
    """A list of names is short for names that both sides use."""
    return {name: name for name in value} if isinstance(value, list) and _are_texts(value) else value


def _are_texts(values: list[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _duration(value: Any) -> float | None:
    return None if value is None else parse_duration(value)


def _for_pairs(value: str) -> str:
    if not is_for_pairs(value):
        raise ValueError("give a text with {query} and {document}, or a chat template with these roles")
    return value


Name = Annotated[str, AfterValidator(check_name)]
RelativePath = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_relative)]
RepositoryId = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}$")
]
Word = Annotated[str, Field(pattern=r"^[\w.-]{1,64}$")]
AnswerFormat = Annotated[str, AfterValidator(_known_format)]
Count = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(gt=0, le=MAX_WEIGHT)]
# YAML has lists; strictness would want tuples.
Names = Annotated[tuple[Name, ...], Strict(False)]
Patterns = Annotated[tuple[RelativePath, ...], Strict(False), BeforeValidator(_one_or_more)]
StopText = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
Stops = Annotated[
    tuple[StopText, ...], Strict(False), BeforeValidator(_one_or_more), Field(max_length=MAX_STOPS)
]


class CatalogModel(BaseModel):
    """Strict: a number in quotes is a mistake, and so is a field nobody knows."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class HubSource(CatalogModel):
    """The source of pulls of a model: a repository, or the parts of it that are named."""

    huggingface: RepositoryId | None = None
    modelscope: RepositoryId | None = None
    file: RelativePath | None = None
    include: Patterns = ()
    revision: Annotated[str, Field(pattern=r"^[\w./-]{1,200}$")] | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        return {"huggingface": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_hub(self) -> Self:
        if (self.huggingface is None) == (self.modelscope is None):
            raise ValueError("give one hub: huggingface or modelscope, and org/name")
        if self.file is not None and self.include:
            raise ValueError("give file or include, not both")
        return self

    @property
    def hub(self) -> Literal["huggingface", "modelscope"]:
        return "huggingface" if self.huggingface is not None else "modelscope"

    @property
    def repository(self) -> str:
        """``org/name``."""
        return self.huggingface or self.modelscope or ""

    @property
    def patterns(self) -> tuple[str, ...]:
        """Which files of the repository are wanted; empty for all."""
        return (self.file,) if self.file is not None else self.include


class AdapterEntry(CatalogModel):
    """A LoRA adapter: what requests call it, its file or folder, relative to MODEL_BASE_PATH, and how much it
    counts."""

    name: Name
    path: RelativePath
    scale: Annotated[float, Field(ge=-100, le=100)] = 1.0


class SamplingDefaults(CatalogModel):
    """Sampling of requests that do not say otherwise; None leaves it to the API's own defaults."""

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


class ModelSettings(CatalogModel):
    """Settings of a model's loads and requests; None leaves a choice to the server's settings or the engine.

    Lengths are in tokens; ``keep_alive`` in seconds, -1 is forever. ``pooling`` makes it an embedding model,
    or a reranker, that pools in this way; with ``matryoshka`` vectors may be cut to ``dimensions`` numbers.
    """

    engine: EngineName = AUTO
    context_length: Count | None = None
    slots: Annotated[int, Field(ge=1, le=1024)] | None = None
    kv_cache_tokens: Count | None = None
    quantization: Word | None = None
    dtype: Literal["auto", "float16", "bfloat16", "float32"] | None = None
    keep_alive: Annotated[float | None, BeforeValidator(_duration)] = None
    pin: bool = False
    preload: bool = False
    instances: Count | None = None
    weight: Weight = 1.0
    sampling: SamplingDefaults = SamplingDefaults()
    tensor_parallel: Count = 1
    pipeline_parallel: Count = 1
    threads: Count | None = None
    pooling: Pooling | None = None
    matryoshka: bool = False
    dimensions: Annotated[tuple[Count, ...], Strict(False)] = ()
    rerank_template: Annotated[str, Field(max_length=MAX_TEMPLATE), AfterValidator(_for_pairs)] | None = None
    gpu_memory: Annotated[float, Field(gt=0, le=1)] | None = None
    answer_format: AnswerFormat | None = None
    ngram_draft: Annotated[int, Field(ge=0, le=64)] | None = None
    options: dict[str, JsonValue] = {}


class CatalogEntry(ModelSettings):
    """One model: at ``path``, pulled from ``hub``, or, with neither, found on disk by its name. ``projector``
    None: the one beside it; "none": no one."""

    name: Name
    aliases: Names = ()
    path: RelativePath | None = None
    hub: HubSource | None = None
    projector: RelativePath | None = None
    adapters: Annotated[tuple[AdapterEntry, ...], Strict(False)] = ()
    description: str = ""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.path is not None and self.hub is not None:
            raise ValueError("give path or hub, not both")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)


class UpstreamEntry(CatalogModel):
    """Another OpenAI-compatible server. ``models``: our names and its own; empty for all that it lists."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s#?]+$", max_length=2048)]
    name: Name | None = None
    api_key: Annotated[str, Field(min_length=1)] | None = Field(None, repr=False)
    api_key_file: RelativePath | None = None
    weight: Weight = 1.0
    models: Annotated[dict[Name, Name], BeforeValidator(_same_names), Field(max_length=MAX_RENAMED)] = {}
    max_concurrent: Count | None = None

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.api_key is not None and self.api_key_file is not None:
            raise ValueError("give api_key or api_key_file, not both")
        return self


class CatalogFile(CatalogModel):
    """The whole file, before its defaults are applied."""

    defaults: ModelSettings = ModelSettings()
    upstreams: Annotated[tuple[UpstreamEntry, ...], Strict(False)] = ()
    models: Annotated[tuple[CatalogEntry, ...], Strict(False)] = ()

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, value: object) -> object:
        """``models:`` with every entry commented out is null in YAML."""
        if isinstance(value, dict):
            return {key: part for key, part in value.items() if part is not None}
        return value
