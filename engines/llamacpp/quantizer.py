"""Requantises GGUF files with llama.cpp, which only the process that converts imports."""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path
from typing import Any

from engines.errors import CannotLoad
from engines.machine.job_process import JobFailed, Message, Send
from engines.models import gguf
from engines.models.convert.plan import ConversionPlan, Quantizer, kept_in, stamp_of
from engines.models.convert.space import check_space
from engines.models.facts import describe
from engines.models.gguf_types import FILE_TYPES

# llama.cpp makes the others only with an importance matrix.
TYPES = (
    *("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S", "Q4_K_M"),
    *("Q5_K_S", "Q5_K_M", "Q6_K", "IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M", "IQ4_NL", "IQ4_XS"),
    *("TQ1_0", "TQ2_0", "MXFP4_MOE", "F16", "BF16", "F32"),
)
_FULL_PRECISION = ("F32", "F16", "BF16", None)
_FIRST_PART = re.compile(r"-00001-of-\d{5}$")
_NUMBERS = {name: number for number, name in FILE_TYPES.items()}
_STEP = re.compile(rb"\[ *(\d+)/ *(\d+)\]")
_SIZE = re.compile(rb"quant size *= *([\d.]+) MiB")
_ERROR = 4  # enum ggml_log_level


def _plan(source: Path, quantization: str, fallback_dir: Path) -> ConversionPlan | None:
    name = quantization.upper()
    if name not in TYPES:
        known = ", ".join(TYPES).lower()
        raise CannotLoad(f"llama.cpp cannot quantise to {quantization!r}: choose one of {known}")
    facts = describe(source)
    if facts.quantization == name:
        return None
    stem = _FIRST_PART.sub("", source.stem)
    return ConversionPlan(
        engine="llama_cpp",
        source=source,
        target=kept_in(source, source.parent, fallback_dir, f"{stem}.{name.lower()}.gguf"),
        level=_NUMBERS[name],
        name=name.lower(),
        stamp=stamp_of(name, "llama-cpp-python", gguf.part_paths(source)),
        source_bytes=facts.weight_bytes,
        degrades=facts.quantization not in _FULL_PRECISION,
    )


class _LlamaLog:
    """llama.cpp tells only its log how far it is, how large the result gets, and what is wrong."""

    def __init__(self, send: Send) -> None:
        import llama_cpp.llama_cpp as lib

        self.size_mib = 0.0
        self.errors: list[str] = []
        self._send = send
        self._callback = lib.llama_log_callback(self._receive)  # ctypes keeps no reference
        lib.llama_log_set(self._callback, ctypes.c_void_p(0))

    def _receive(self, level: int, text: bytes, _user_data: Any) -> None:
        if step := _STEP.search(text):
            self._send({"progress": int(step[1]) / max(1, int(step[2]))})
        elif size := _SIZE.search(text):
            self.size_mib = float(size[1])
        elif level == _ERROR:
            self.errors.append(text.decode("utf-8", "replace").strip("\n= "))


def _run(order: Message, part: Path, send: Send) -> None:
    rehearsal = _LlamaLog(lambda message: None)
    if _quantize(order, part, dry_run=True) == 0:
        check_space(part, int(rehearsal.size_mib * 2**20))
    log = _LlamaLog(send)
    if _quantize(order, part, dry_run=False) != 0:
        check_space(part, 0)
        raise JobFailed(f"llama.cpp cannot convert {order['source']}: {'; '.join(log.errors)}")


def _quantize(order: Message, part: Path, *, dry_run: bool) -> int:
    import llama_cpp.llama_cpp as lib

    params = lib.llama_model_quantize_default_params()
    params.ftype = order["level"]
    params.nthread = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    params.allow_requantize = True
    params.dry_run = dry_run
    status = lib.llama_model_quantize(os.fsencode(order["source"]), os.fsencode(part), ctypes.byref(params))
    return int(status)


QUANTIZER = Quantizer(_plan, _run)
