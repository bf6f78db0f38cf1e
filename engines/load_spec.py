"""The order to load a model, as an engine gets it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engines.base import Adapter
from engines.models.purpose import Pooling


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """A load: the model, and its options; None leaves a choice to the engine. Lengths in tokens.

    ``path`` is a GGUF file or a folder in Hugging Face's format. ``use_gpu`` True fails where the engine
    has no GPU to use; None uses one if there is one. ``gpu_memory`` is the share of a GPU that vLLM may
    take. ``dtype``, ``quantization`` (how weights are read, not how they are converted), the parallel
    sizes and ``adapters`` are for the engines that know them; after ``stall_timeout`` seconds without a
    step, with work waiting, the engine counts as hung; with ``allow_special_tokens`` the control tokens that
    messages hold count as the chat template's own; with ``deterministic`` llama.cpp computes greedy and
    seeded requests that run alone the same way each time, and drafts at most ``ngram_draft`` tokens a step;
    ``answer_format`` names the one in which the model writes reasoning and calls, None: as its chat template
    shows; ``pooling`` (None: the model's files say whether it pools, and how), ``matryoshka`` and
    ``dimensions`` are as in `EngineInfo`; ``rerank_template`` makes a model that generates a reranker
    (`engines.text.ranking.pair_template`); ``projector`` is the file by which a GGUF model sees or hears;
    ``options`` are passed on to the engine's own configuration by name, and one that it does not know is an
    error.
    """

    engine: str
    name: str
    path: Path | None = None
    context_length: int | None = None
    kv_cache_tokens: int | None = None
    max_sequences: int = 32
    threads: int | None = None
    use_gpu: bool | None = None
    cache_prefixes: bool = True
    gpu_memory: float = 0.8
    dtype: str | None = None
    quantization: str | None = None
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    adapters: tuple[Adapter, ...] = ()
    stall_timeout: float = 60.0
    allow_special_tokens: bool = False
    deterministic: bool = True
    answer_format: str | None = None
    pooling: Pooling | None = None
    matryoshka: bool = False
    dimensions: tuple[int, ...] = ()
    rerank_template: str | None = None
    projector: Path | None = None
    ngram_draft: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
