"""What the fake engine can do, unless it is told to do less or more."""

from __future__ import annotations

CAPABILITIES = frozenset({"chat", "completion", "embeddings", "rerank", "fim", "vision", "audio"})
