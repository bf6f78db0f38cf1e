"""What the model routes take and answer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field

from app.schemas.common import KeepAlive, WireModel
from engines.lifecycle.states import ModelState
from engines.models.catalog import EngineName

# Who owns the models that this server runs itself.
OWN = "enginehouse"
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
    context_length: int | None = Field(None, description="Tokens, prompt and completion together.")


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class Loading(BaseModel):
    phase: str = Field(description="`converting` or `loading`.")
    progress: float = Field(description="0 to 1.")
    eta_seconds: float | None


class Download(BaseModel):
    """How far a pull is."""

    status: Literal["resolving", "downloading", "verifying", "done"]
    file: str | None = Field(None, description="The file that moved last.")
    completed: int = Field(description="Bytes of all files.")
    total: int | None = Field(description="Bytes of all files; null until known.")
    speed: float = Field(description="Bytes a second.")
    eta_seconds: float | None


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
    loads: int = Field(0, description="Times it was loaded since the server started.")
    restarts: int = Field(0, description="Times it was loaded again because it stopped making progress.")
    load_seconds: float | None = Field(None, description="How long the last load took.")
    unload_seconds: float | None = None


class Accepted(BaseModel):
    """The load goes on; `status_url` says how far it is."""

    model: str
    state: ModelState
    status_url: str


class LoadRequest(WireModel):
    model_name: Text = Field(description="A model as in GET /v1/models, or a new name for `model_path`.")
    model_path: Text | None = Field(
        None, description="A GGUF file or model folder under MODEL_BASE_PATH, to be served as `model_name`."
    )
    engine: EngineName | None = None
    keep_alive: KeepAlive = None
    pin: bool | None = Field(None, description="Never unload it to make room, nor for want of use.")
    quantization: Annotated[str, Field(pattern=r"^[\w.-]{1,64}$")] | None = Field(
        None, description="Convert it once, such as `q4_0` (GGUF) or `4bit` (MLX), and keep the result."
    )
    context_length: int | None = Field(None, ge=1, le=2**31 - 1, description="In tokens.")
    wait: bool = Field(True, description="false: answer 202 at once, with a status URL.")


def _patterns(value: object) -> object:
    return [value] if isinstance(value, str) else value


class PullBody(WireModel):
    model_name: Text = Field(description="A catalog model, or `org/name` of a hub.")
    source: Literal["huggingface", "modelscope"] | None = Field(
        None, description="Which hub; default: the catalog's, else huggingface."
    )
    revision: Annotated[str, Field(pattern=r"^[\w./-]{1,200}$")] | None = None
    include: Annotated[list[Text], BeforeValidator(_patterns), Field(max_length=64)] | None = Field(
        None, description="Files to take, such as `*q4_k_m.gguf`; default: what can be served."
    )
    stream: bool = Field(
        True, description="Progress as server-sent events. false: one answer when it is done."
    )


class Pulled(BaseModel):
    status: Literal["success"] = "success"
    model: str
    path: str
    size: int = Field(description="Bytes.")
    files: list[str]
