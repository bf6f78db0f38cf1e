"""Models made of the bundled one, SmolLM2-135M-Instruct: requantised, and as a Hugging Face folder.

Each is made once and kept in the system's folder for temporary files.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from benchmarks.harness.processes import BenchError
from engines.errors import ModelFileNotFound
from engines.models.survey import resolve

BUNDLED = "SmolLM2-135M-Instruct"
# `make` puts a faster quantisation beside it.
AS_IT_COMES = f"{BUNDLED}.Q4_1"
NAME = "SmolLM2-135M"  # another, as two models of one server cannot share a name
CONVERSION_TIMEOUT = 300.0


@cache
def gguf(kind: str = "Q4_0") -> Path:
    """What is measured unless a file is named: Q4_0 has ggml's fastest kernels. Raises `BenchError`."""
    return requantised(kept("bench") / f"{NAME}.{kind}.gguf", kind)


@cache
def folder() -> Path:
    """The same for MLX and vLLM. Raises `BenchError`."""
    return converted(kept("bench") / f"{NAME}-bf16")


def kept(purpose: str) -> Path:
    """The folder in which models for ``purpose`` are kept from run to run."""
    path = Path(tempfile.gettempdir()) / f"enginehouse-{purpose}-{os.getuid()}"
    path.mkdir(exist_ok=True)
    return path


def bundled() -> Path:
    """The bundled model as it comes: a GGUF file in Q4_1. Raises `BenchError`."""
    try:
        return resolve(AS_IT_COMES, Path("models")).path
    except ModelFileNotFound as error:
        raise BenchError(f"{error.message}; or name one with --model") from None


def requantised(target: Path, kind: str) -> Path:
    """The bundled model as the file ``target`` in ``kind``, such as Q8_0. Raises `BenchError`."""
    if target.exists():
        return target
    import llama_cpp.llama_cpp as lib

    from engines.llamacpp import native_log

    native_log.install()  # it would print a line for each of hundreds of tensors
    source, part = bundled(), target.with_suffix(f".{os.getpid()}")
    params = lib.llama_model_quantize_default_params()
    params.ftype = getattr(lib, f"LLAMA_FTYPE_MOSTLY_{kind}")
    params.allow_requantize = True
    if lib.llama_model_quantize(str(source).encode(), str(part).encode(), params):
        raise BenchError(f"{source.name} could not be requantised")
    part.rename(target)
    return target


def converted(target: Path) -> Path:
    """The bundled model as the Hugging Face folder ``target``, in bfloat16. Raises `BenchError`."""
    if target.exists():
        return target
    part = target.with_suffix(f".{os.getpid()}")
    # A process of its own: torch and transformers would stay in the memory of this one.
    done = subprocess.run(
        [sys.executable, "-c", _TO_FOLDER, str(bundled()), str(part)],
        capture_output=True,
        text=True,
        timeout=CONVERSION_TIMEOUT,
    )
    if done.returncode:
        raise BenchError(f"no folder could be made of the bundled model: {done.stderr.strip()[-400:]}")
    part.rename(target)
    return target


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
