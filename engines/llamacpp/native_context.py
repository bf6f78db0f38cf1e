"""Native contexts: what all of them have in common."""

from __future__ import annotations

from typing import Any

import llama_cpp.llama_cpp as lib

from engines.errors import ModelLoadError
from engines.llamacpp import native_log
from engines.llamacpp.model import LlamaModel

FLASH_ATTENTION_AUTO = -1


def parameters(threads: int, offload: bool) -> Any:
    """The parameters of a context, without its sizes."""
    params = lib.llama_context_default_params()
    params.n_threads = params.n_threads_batch = threads
    # Sliding-window layers otherwise drop cells that a shared prefix needs.
    params.swa_full = True
    params.flash_attn_type = FLASH_ATTENTION_AUTO
    params.offload_kqv = params.op_offload = offload
    params.no_perf = True
    return params


def create(model: LlamaModel, params: Any, *, what: str, smaller: str) -> Any:
    """A context of ``model``. Raises `ModelLoadError`, which says ``what`` there is not, and which settings
    need less memory if they are ``smaller``."""
    native_log.forget_errors()
    handle = lib.llama_init_from_model(model.handle, params)
    if not handle:
        reason = native_log.recent_errors() or "out of memory?"
        raise ModelLoadError(
            f"no context of {what} for {model.path.name}: {reason} (a smaller {smaller} needs less memory)"
        )
    return handle
