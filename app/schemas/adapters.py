"""The bodies of the routes for LoRA adapters."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from app.schemas.common import StrictModel
from app.schemas.models import Text
from engines.models.catalog import AdapterEntry
from engines.models.model import adapter_name


class NewAdapter(StrictModel):
    name: Text = Field(description="What requests call it, behind the model's name and a colon.")
    path: Text = Field(
        description="In MODEL_BASE_PATH: a GGUF file for llama.cpp, a folder (PEFT's format) for vLLM, MLX."
    )
    scale: Annotated[float, Field(ge=-100, le=100, description="How much it counts.")] = 1.0


class AdapterCard(BaseModel):
    id: str = Field(description="What requests give as `model`.")
    object: Literal["adapter"] = "adapter"
    name: str = Field(description="Its own name, which requests may give as well.")
    parent: str = Field(description="The model that it belongs to.")
    path: str = Field(description="In MODEL_BASE_PATH.")
    scale: float
    source: Literal["catalog", "added"] = Field(description="added: since the server was started.")

    @classmethod
    def of(cls, model: str, entry: AdapterEntry, *, is_added: bool) -> AdapterCard:
        return cls(
            id=adapter_name(model, entry.name),
            name=entry.name,
            parent=model,
            path=entry.path,
            scale=entry.scale,
            source="added" if is_added else "catalog",
        )


class AdapterList(BaseModel):
    object: Literal["list"] = "list"
    data: list[AdapterCard]


class AdapterRemoved(BaseModel):
    message: str
    id: str
    name: str


class LoadLora(StrictModel):
    """vLLM's body. It has one model; here the default one is meant unless ``model`` names another."""

    lora_name: Text = Field(description="What the adapter is called.")
    lora_path: Text = Field(description="In MODEL_BASE_PATH.")
    model: Text | None = Field(None, description="The model that it changes.")


class UnloadLora(StrictModel):
    lora_name: Text = Field(description="The adapter's name.")
    lora_int_id: int | None = Field(None, description="vLLM's own number of it: not looked at.")
    model: Text | None = Field(None, description="The model that it belongs to.")
