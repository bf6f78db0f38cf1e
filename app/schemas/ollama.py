"""Errors of Ollama's API, as its routes document them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from app.schemas.common import ERROR_RESPONSES


class OllamaError(BaseModel):
    """Every error's body."""

    error: str


OLLAMA_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {**response, "model": OllamaError} for status, response in ERROR_RESPONSES.items()
}
