"""The bodies of the model routes, and how they are made of what is known of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field

from app.schemas.common import KeepAlive, StrictModel
from balancer.backends.base import Backend, BackendState
from engines.abilities import TOLD, Abilities, of_loaded
from engines.lifecycle.states import ModelState, ModelStatus
from engines.models.catalog import EngineName
from engines.models.model import Model, adapter_name
from engines.models.pull.jobs import PullJob
from engines.models.pull.puller import PulledModel, PullProgress

# Who owns the models that this server runs itself.
OWN = "enginehouse"
# Who owns a model that more than one upstream has.
SEVERAL_UPSTREAMS = "upstream"
Text = Annotated[str, Field(min_length=1, max_length=1024)]


class ModelCard(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="When the server started, in Unix seconds.")
    owned_by: str = Field(
        OWN, description="An upstream's name (`upstream`: several have it) for a model that is not here."
    )
    state: ModelState = Field(
        description="absent (in the catalog, not on disk), downloading, stopped, loading, ready, sleeping, "
        "draining or failed. A request for a stopped model loads it."
    )
    aliases: list[str] = Field(description="Other names that requests may use.")
    parent: str | None = Field(None, description="Of a LoRA adapter: the model that it belongs to.")
    engine: str | None = Field(None, description="Which engine runs it; null until it is loaded.")
    format: str | None = Field(None, description="gguf, hf or mlx; null for a model that is not on disk.")
    source: str | None = Field(None, description="disk or bundled.")
    size: int | None = Field(None, description="Bytes on disk.")
    context_length: int | None = Field(
        None, description="Tokens, prompt and completion together; before it is loaded, those to be expected."
    )
    max_model_len: int | None = Field(None, description="The same, as vLLM calls it.")
    capabilities: list[str] | None = Field(
        None,
        description=f"Some of {', '.join(TOLD)}; before it is loaded, those to be expected. null: not known.",
    )
    pooling: str | None = Field(None, description="How a model that makes vectors or scores pools.")
    embedding_length: int | None = Field(None, description="How many numbers its vectors have.")
    input_modalities: list[str] = ["text"]
    output_modalities: list[str] | None = Field(None, description="`text`, `embeddings` or `scores`.")

    @classmethod
    def at_rest(cls, model: Model, created: int, abilities: Abilities) -> ModelCard:
        """The card of a model that nobody wanted so far. ``created`` in Unix seconds."""
        state = ModelState.ABSENT if model.is_absent else ModelState.STOPPED
        return cls(state=state, **_identity(model, created), **_able(abilities))

    def of_adapter(self, name: str) -> Self:
        """The card of an adapter of this model, which requests name like a model."""
        own = {"id": adapter_name(self.id, name), "parent": self.id, "aliases": [name]}
        return self.model_copy(update=own)


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]
    server_id: str = Field(description="Of this server, so that servers that ask each other know it.")


class Loading(BaseModel):
    phase: str = Field(description="`converting` or `loading`.")
    progress: float = Field(description="0 to 1.")
    eta_seconds: float | None

    @classmethod
    def of(cls, status: ModelStatus) -> Loading | None:
        """None unless the model is being loaded."""
        if status.state is not ModelState.LOADING:
            return None
        return cls(phase=status.phase, progress=status.progress, eta_seconds=status.eta_seconds)


class Download(BaseModel):
    """Progress of a pull."""

    status: Literal["resolving", "downloading", "verifying", "done"]
    file: str | None = Field(None, description="The file that moved last.")
    completed: int = Field(description="Bytes of all files.")
    total: int | None = Field(description="Bytes of all files; null until known.")
    speed: float = Field(description="Bytes a second.")
    eta_seconds: float | None

    @classmethod
    def of(cls, progress: PullProgress) -> Download:
        return cls.model_validate(progress, from_attributes=True)


class ModelReport(ModelCard):
    """Everything about one model."""

    detail: str = Field("", description="Why it is in this state, if there is a reason.")
    loading: Loading | None = None
    download: Download | None = None
    requests: int = Field(0, description="Being served now.")
    pinned: bool = False
    keep_alive: float = Field(
        -1, description="Seconds that it stays unused before it is unloaded; -1: for good."
    )
    expires_in: float | None = Field(None, description="Seconds until it is unloaded if nobody uses it.")
    retry_after: float | None = Field(None, description="Seconds until a failed load may be tried again.")
    memory: int = Field(0, description="Bytes that it takes, or is estimated to take, on whatever device.")
    devices: list[str] = []
    sampling: dict[str, Any] = Field(
        {}, description="What a request gets that does not say otherwise: by the catalog, the model, or us."
    )
    loads: int = Field(0, description="Times it was loaded since the server started.")
    restarts: int = Field(0, description="Times it was loaded again because it stopped making progress.")
    load_seconds: float | None = Field(None, description="How long the last load took.")
    unload_seconds: float | None = None

    def card(self) -> ModelCard:
        """What the list of models says of it."""
        return ModelCard(**{name: getattr(self, name) for name in ModelCard.model_fields})

    @classmethod
    def of(
        cls, model: Model, status: ModelStatus, pull: PullJob | None, created: int, abilities: Abilities
    ) -> ModelReport:
        """A model of this server, and the ``pull`` of it that runs. ``created`` in Unix seconds;
        ``abilities`` are those to be expected."""
        info = status.info
        return cls(
            **_identity(model, created),
            state=_state(model, status, pull),
            **_able(of_loaded(info) if info else abilities),
            engine=info.engine if info else None,
            detail=status.detail or ("waits for room" if status.waits_for_room else ""),
            loading=Loading.of(status),
            download=Download.of(pull.progress) if pull else None,
            requests=status.inflight,
            pinned=status.pinned,
            keep_alive=status.keep_alive,
            expires_in=status.expires_in,
            retry_after=status.retry_after,
            memory=status.held.ram + status.held.gpu,
            devices=list(info.devices) if info else [],
            sampling=model.sampling.model_dump(mode="json", exclude_none=True),
            loads=status.loads,
            restarts=status.restarts,
            load_seconds=status.load_seconds,
            unload_seconds=status.unload_seconds,
        )

    @classmethod
    def of_upstreams(
        cls,
        name: str,
        upstreams: Sequence[Backend],
        *,
        requests: int,
        created: int,
        aliases: Sequence[str] = (),
    ) -> ModelReport:
        """A model that only ``upstreams`` have, at least one. ``created`` in Unix seconds."""
        state = _best([upstream.state for upstream in upstreams])
        return cls(
            id=name,
            created=created,
            owned_by=upstreams[0].name if len(upstreams) == 1 else SEVERAL_UPSTREAMS,
            state=state,
            aliases=list(aliases),
            detail="" if state is ModelState.READY else _troubles(upstreams),
            requests=requests,
        )


class Accepted(BaseModel):
    """The load goes on; `status_url` says how far it is."""

    model: str
    state: ModelState
    status_url: str


class LoadRequest(StrictModel):
    model_name: Text = Field(description="A model as in GET /v1/models, or a new name for `model_path`.")
    model_path: Text | None = Field(
        None, description="A GGUF file or model folder under MODEL_BASE_PATH, to be served as `model_name`."
    )
    engine: EngineName | None = Field(
        None, description="Which engine runs it; unset: as the catalog or the server says."
    )
    keep_alive: KeepAlive = None
    pin: bool | None = Field(None, description="Never unload it to make room, nor for want of use.")
    quantization: Annotated[str, Field(pattern=r"^[\w.-]{1,64}$")] | None = Field(
        None, description="Convert it once, such as `q4_0` (GGUF) or `4bit` (MLX), and keep the result."
    )
    context_length: int | None = Field(None, ge=1, le=2**31 - 1, description="In tokens.")
    wait: bool = Field(True, description="false: answer 202 at once, with a status URL.")


def _patterns(value: object) -> object:
    return [value] if isinstance(value, str) else value


class PullBody(StrictModel):
    model_name: Text = Field(
        description="A catalog model, `org/name` or `org/name:QUANT` of a hub, or a page's address there."
    )
    source: Literal["huggingface", "modelscope"] | None = Field(
        None, description="Which hub; default: the catalog's, else huggingface."
    )
    revision: Annotated[str, Field(pattern=r"^[\w./-]{1,200}$")] | None = Field(
        None, description="A branch, tag or commit of the repository."
    )
    include: (
        Annotated[list[Text], Field(fail_fast=True, max_length=64), BeforeValidator(_patterns)] | None
    ) = Field(None, description="Files to take, such as `*q4_k_m.gguf`; default: what can be served.")
    force: bool = Field(False, description="Also what no engine here can run, or there is no memory for.")
    stream: bool = Field(
        True, description="Progress as server-sent events. false: one answer when it is done."
    )


class Pulled(BaseModel):
    status: Literal["success"] = "success"
    model: str
    path: str
    size: int = Field(description="Bytes.")
    files: list[str]

    @classmethod
    def of(cls, name: str, pulled: PulledModel) -> Pulled:
        return cls(model=name, path=str(pulled.path), size=pulled.size, files=list(pulled.files))


def _identity(model: Model, created: int) -> dict[str, Any]:
    """What a card says of a model whatever state it is in."""
    file = model.file
    return {
        "id": model.name,
        "created": created,
        "aliases": list(model.aliases),
        "format": file.format if file and file.format != "none" else None,
        "source": file.source if file and file.source != "none" else None,
        "size": file.size or None if file else None,
    }


def _able(abilities: Abilities) -> dict[str, Any]:
    return {
        "context_length": abilities.context_length,
        "max_model_len": abilities.context_length,
        "capabilities": list(abilities.capabilities) or None,
        "pooling": abilities.pooling or None,
        "embedding_length": abilities.embedding_length or None,
        "input_modalities": abilities.input_modalities,
        "output_modalities": abilities.output_modalities or None,
    }


def _state(model: Model, status: ModelStatus, pull: PullJob | None) -> ModelState:
    if status.state is not ModelState.STOPPED:
        return status.state
    if pull is not None:
        return ModelState.DOWNLOADING
    return ModelState.ABSENT if model.is_absent else ModelState.STOPPED


def _best(states: Sequence[BackendState]) -> ModelState:
    if BackendState.READY in states:
        return ModelState.READY
    return ModelState.LOADING if BackendState.STARTING in states else ModelState.FAILED


def _troubles(upstreams: Sequence[Backend]) -> str:
    details = {upstream.name: upstream.status().detail for upstream in upstreams}
    return "; ".join(f"{name}: {detail}" for name, detail in details.items() if detail)
