"""Endpoints that batches may be for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.dialects.openai.dialect import CHAT, COMPLETIONS, EMBEDDINGS
from app.dialects.openai.responses.dialect import RESPONSES
from app.inference.dialect import Dialect


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A dialect by its path. ``has_store``: its requests may refer to what is stored, and be stored."""

    dialect: Dialect[Any]
    has_store: bool = False


ENDPOINTS = {
    "/v1/chat/completions": Endpoint(CHAT),
    "/v1/completions": Endpoint(COMPLETIONS),
    "/v1/embeddings": Endpoint(EMBEDDINGS),
    "/v1/responses": Endpoint(RESPONSES, has_store=True),
}
