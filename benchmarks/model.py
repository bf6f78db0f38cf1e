"""The model that is measured unless another is named: the bundled one, requantised to Q4_0."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from benchmarks.processes import BenchError
from engines.errors import ModelFileNotFound
from engines.store import resolve


def default_model() -> Path:
    """SmolLM2 in Q4_0, for which ggml has its fast kernels. Made once. Raises `BenchError`."""
    target = (
        Path(tempfile.gettempdir()) / f"enginehouse-bench-{os.getuid()}" / "SmolLM2-135M-Instruct.Q4_0.gguf"
    )
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        _requantise(_bundled(), target)
    return target


def _bundled() -> Path:
    try:
        return resolve("SmolLM2-135M-Instruct", Path("models")).path
    except ModelFileNotFound as error:
        raise BenchError(f"{error.message}; or name one with --model") from None


def _requantise(source: Path, target: Path) -> None:
    import llama_cpp.llama_cpp as lib

    from engines.llamacpp import native_log

    native_log.install()  # it would print a line for each of hundreds of tensors
    part = target.with_suffix(f".{os.getpid()}")
    params = lib.llama_model_quantize_default_params()
    params.ftype = lib.LLAMA_FTYPE_MOSTLY_Q4_0
    params.allow_requantize = True
    if lib.llama_model_quantize(str(source).encode(), str(part).encode(), params):
        raise BenchError(f"{source.name} could not be requantised")
    part.rename(target)
