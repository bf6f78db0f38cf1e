"""Schema of the requests of Ollama's API about models, and of the answers."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from app.schemas.common import WireModel


class OllamaNamed(WireModel):
    """A model, by either field."""

    model: str = Field("", max_length=1024, description="A model's name.")
    name: str = Field("", max_length=1024, description="Older name of `model`.")

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        if not (self.model or self.name):
            raise ValueError("model is missing: give the name of a model, as GET /api/tags lists them")
        self.model = self.model or self.name
        return self


class OllamaShowRequest(OllamaNamed):
    verbose: bool = Field(False, description="Accepted and not used: vocabularies are not told.")
    system: Any = Field(None, description="Accepted and not used.")
    template: Any = Field(None, description="Accepted and not used.")
    options: Any = Field(None, description="Accepted and not used.")


class OllamaPullRequest(OllamaNamed):
    stream: bool = Field(True, description="Progress, one JSON object a line; false: one at the end.")
    insecure: Any = Field(None, description="Accepted and not used: certificates are always checked.")
    username: Any = Field(None, description="Accepted and not used.")
    password: Any = Field(None, description="Accepted and not used.")


class OllamaVersion(BaseModel):
    version: str = Field(description="The version of Ollama whose API this is.")


class OllamaDetails(BaseModel):
    parent_model: str = Field("", description="Of a LoRA adapter: its model.")
    format: str = Field("", description="gguf, or safetensors.")
    family: str = Field("", description="The architecture.")
    families: list[str] = []
    parameter_size: str = Field("", description="As the model's maker says, such as `7B`.")
    quantization_level: str = Field("", description="Such as `Q4_K_M`.")


class OllamaModelBase(BaseModel):
    name: str
    model: str = Field(description="The same.")
    size: int = Field(description="In bytes.")
    digest: str = Field(description="An id of the model's file as it is; not of its content.")
    details: OllamaDetails


class OllamaModel(OllamaModelBase):
    modified_at: str = Field(description="RFC 3339.")
    capabilities: list[str] | None = Field(None, description="As /api/show tells them; null: not known.")


class OllamaModels(BaseModel):
    models: list[OllamaModel]


class OllamaRunningModel(OllamaModelBase):
    expires_at: str = Field(description="When it is unloaded if nobody uses it; centuries ahead: never.")
    size_vram: int = Field(description="Of `size`, the bytes in GPUs' memory.")
    context_length: int = Field(description="In tokens.")


class OllamaRunningModels(BaseModel):
    models: list[OllamaRunningModel]


class OllamaShown(BaseModel):
    modelfile: str = Field(description="Only the name: a model is loaded as models.yaml says.")
    parameters: str = Field(description="The sampling that counts where a request does not say, one a line.")
    template: str = Field(description="The chat template, in Jinja.")
    license: str = ""
    details: OllamaDetails
    model_info: dict[str, Any] = Field(description="As the file's header has it, less the vocabulary.")
    capabilities: list[str] = Field(
        description="Some of completion, tools, thinking, vision, audio, embedding, insert."
    )
    modified_at: str = Field(description="RFC 3339.")


class OllamaStatus(BaseModel):
    status: Literal["success"] = "success"


class OllamaProgress(BaseModel):
    """A line of a pull's progress; the last one's status is `success`."""

    status: str
    digest: str | None = Field(None, description="Of what is pulled: an id for a progress bar.")
    total: int | None = Field(None, description="Bytes.")
    completed: int | None = Field(None, description="Bytes.")
