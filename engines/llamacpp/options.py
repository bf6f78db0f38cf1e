"""Options of a load into llama.cpp."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class LlamaOptions:
    """Options of one load; None lets the engine choose. ``context_length`` and ``kv_cells`` in tokens."""

    name: str
    path: Path
    context_length: int | None = None
    kv_cells: int | None = None
    max_sequences: int = 32
    cached_prefixes: int = 32
    threads: int | None = None
    offload: bool | None = None  # None: if this build can
    cache_prefixes: bool = True
    stall_timeout: float = 60.0
    allow_special_tokens: bool = False
    deterministic: bool = True
    ngram_draft: int = 0  # most tokens that a step drafts
