"""The models that are measured unless others are named: all are the bundled one, converted once."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from benchmarks.harness.processes import BenchError
from engines.errors import ModelFileNotFound
from engines.models.store import resolve

BUNDLED = "SmolLM2-135M-Instruct"
NAME = "SmolLM2-135M"  # another, as two models of one server cannot share a name
CONVERSION_TIMEOUT = 300.0


@cache
def gguf(kind: str = "Q4_0") -> Path:
    """SmolLM2 requantised, by default to Q4_0, for which ggml has its fast kernels. Raises `BenchError`."""
    target = _kept() / f"{NAME}.{kind}.gguf"
    if not target.exists():
        _requantise(_bundled(), target, kind)
    return target


@cache
def folder() -> Path:
    """The same as a folder in Hugging Face's format, in bfloat16, for MLX and vLLM. Raises `BenchError`."""
    target = _kept() / f"{NAME}-bf16"
    if not target.exists():
        part = target.with_suffix(f".{os.getpid()}")
        # A process of its own: torch and transformers would stay in the memory of this one.
        done = subprocess.run(
            [sys.executable, "-c", _TO_FOLDER, str(_bundled()), str(part)],
            capture_output=True,
            text=True,
            timeout=CONVERSION_TIMEOUT,
        )
        if done.returncode:
            raise BenchError(f"no folder could be made of the bundled model: {done.stderr.strip()[-400:]}")
        part.rename(target)
    return target


def _kept() -> Path:
    kept = Path(tempfile.gettempdir()) / f"enginehouse-bench-{os.getuid()}"
    kept.mkdir(exist_ok=True)
    return kept


def _bundled() -> Path:
    try:
        return resolve(BUNDLED, Path("models")).path
    except ModelFileNotFound as error:
        raise BenchError(f"{error.message}; or name one with --model") from None


def _requantise(source: Path, target: Path, kind: str) -> None:
    import llama_cpp.llama_cpp as lib

    from engines.llamacpp import native_log

    native_log.install()  # it would print a line for each of hundreds of tensors
    part = target.with_suffix(f".{os.getpid()}")
    params = lib.llama_model_quantize_default_params()
    params.ftype = getattr(lib, f"LLAMA_FTYPE_MOSTLY_{kind}")
    params.allow_requantize = True
    if lib.llama_model_quantize(str(source).encode(), str(part).encode(), params):
        raise BenchError(f"{source.name} could not be requantised")
    part.rename(target)


_TO_FOLDER = """
import sys
from pathlib import Path
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
source, target = Path(sys.argv[1]), sys.argv[2]
whole = GgufConfig(dequantize=True)
AutoModelForCausalLM.from_pretrained(
    source.parent, gguf_file=source.name, quantization_config=whole, dtype="bfloat16"
).save_pretrained(target)
AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(target)
"""
