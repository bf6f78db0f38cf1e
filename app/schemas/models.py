"""GET /v1/models."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class ModelCard(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="When the model was added, in Unix seconds.")
    owned_by: str = "enginehouse"
    state: str = Field(description="starting, ready, unhealthy, failed, …")
    aliases: list[str] = Field(description="Other names that requests may use.")
    engine: str | None = Field(None, description="Which engine runs it; null until it is loaded.")
    size: int | None = Field(None, description="Bytes on disk.")
    context_length: int | None = Field(None, description="Tokens, prompt and completion together.")


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]
