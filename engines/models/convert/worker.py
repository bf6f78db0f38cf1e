"""The process that converts: it may take all the memory it wants, crash, or be killed."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
from pathlib import Path
from typing import Any

from engines.machine.job_process import JobFailed, Message, Send, serve_job
from engines.models.convert.cache import Kept

MARGIN = 128 * 2**20  # bytes of the disk that are left free
_STEP = re.compile(rb"\[ *(\d+)/ *(\d+)\]")
_SIZE = re.compile(rb"quant size *= *([\d.]+) MiB")
_ERROR = 4  # enum ggml_log_level


def convert(order: Message, send: Send) -> Message:
    """Do what `engines.models.convert.converter` ordered. Raises `JobFailed`."""
    os.nice(10)  # models that answer requests come first
    kept = Kept(Path(order["target"]))
    try:
        with kept.held():
            if kept.is_current(order["stamp"]):  # another process made it while we waited
                return {"made": False}
            if order["tool"] == "mlx":
                _with_mlx(order, kept.part)
            else:
                _with_llama_cpp(order, kept.part, send)
            kept.install(order["stamp"])
    except OSError as error:
        raise _explain(error, kept.target) from error
    send({"progress": 1.0})
    return {"made": True}


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


def _with_llama_cpp(order: Message, part: Path, send: Send) -> None:
    plan = _LlamaLog(lambda message: None)
    if _quantize(order, part, dry_run=True) == 0:
        _check_space(part, int(plan.size_mib * 2**20))
    log = _LlamaLog(send)
    if _quantize(order, part, dry_run=False) != 0:
        _check_space(part, 0)
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


def _with_mlx(order: Message, part: Path) -> None:
    from mlx_lm import convert as mlx_convert

    bits = order["level"]
    # Each group of 64 weights also has a scale and a bias of 16 bits; the source has 16 bits or more.
    _check_space(part, int(order["source_bytes"] * (bits + 0.5) / 16))
    try:
        mlx_convert(order["source"], str(part), quantize=True, q_bits=bits, q_group_size=64)
    except (ValueError, RuntimeError, KeyError) as error:
        _check_space(part, 0)
        raise JobFailed(f"MLX cannot convert {order['source']}: {error}") from error


def _check_space(part: Path, needed: int) -> None:
    """Raise `JobFailed` unless ``needed`` bytes fit on the disk."""
    free = shutil.disk_usage(part.parent).free
    if needed + MARGIN > free:
        raise JobFailed(
            f"the converted model needs {(needed + MARGIN) / 1e9:.2f} GB but the disk of {part.parent} has "
            f"{free / 1e9:.2f} GB free: remove something, or drop `quantization`"
        )


def _explain(error: OSError, target: Path) -> JobFailed:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return JobFailed(f"the disk of {target.parent} is full: make room and load the model again")
    return JobFailed(f"the converted model cannot be written: {error}")


if __name__ == "__main__":
    serve_job(convert)
