"""Options of a load into llama.cpp."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engines.base import Adapter
from engines.models.purpose import Pooling


@dataclass(frozen=True, slots=True)
class LlamaOptions:
    """Options of one load; None lets the engine choose, or the file. ``context_length`` and ``kv_cells`` in
    tokens. See `LoadSpec` for the last ones; ``pooling``, ``matryoshka`` and ``dimensions`` are of models
    that pool."""

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
    answer_format: str | None = None
    pooling: Pooling | None = None
    matryoshka: bool = False
    dimensions: tuple[int, ...] = ()
    rerank_template: str | None = None  # in the place of the file's own
    projector: Path | None = None  # for images and sounds
    ngram_draft: int = 0  # most tokens that a step drafts
    adapters: tuple[Adapter, ...] = ()
