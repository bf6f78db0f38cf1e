"""vLLM's own configuration for a `LoadSpec`."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.errors import CannotLoad
from engines.load_spec import LoadSpec
from engines.media import MOST_MEDIA
from engines.models.facts import describe
from engines.sizing import AUTO_KV_MEMORY_SHARE
from engines.vllm.folder import largest_rank, pools, purpose
from engines.vllm.structures import BACKEND

OWN_OPTIONS = ("tool_call_parser", "reasoning_parser", "chat_template")
"""Options that configure what surrounds vLLM's engine, under the names that ``vllm serve`` gives them."""

# Ranks that vLLM's kernels are built for.
# Unless the options say otherwise: adapters in one step, and their largest rank, where none is known yet.
ADDED_LORAS, ADDED_RANK = 4, 64
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
FIT_CONTEXT = -1  # vLLM: the model's own context, or what of it fits the KV cache


@dataclass(frozen=True, slots=True)
class KvSize:
    """``bytes`` of one device's KV cache and the ``blocks`` it is cut into; None leaves it to vLLM."""

    blocks: int | None = None
    bytes: int | None = None


def own_options(spec: LoadSpec) -> dict[str, str | None]:
    """The options of `OWN_OPTIONS`, None where not given. Raises `ModelLoadError` for one that is no text."""
    found = {name: spec.options.get(name) for name in OWN_OPTIONS}
    for name, value in found.items():
        if value is not None and not isinstance(value, str):
            raise CannotLoad(f"the vLLM option {name} must be text")
    return found


def engine_args(spec: LoadSpec, known: Iterable[str], *, can_sleep: bool) -> dict[str, Any]:
    """Arguments for ``AsyncEngineArgs``, whose field names are ``known``.

    Raises `ModelLoadError` for options that vLLM does not know and for broken adapters.
    """
    args: dict[str, Any] = {
        "model": str(spec.path),
        "served_model_name": [spec.name],
        "max_model_len": spec.context_length or FIT_CONTEXT,
        "max_num_seqs": spec.max_sequences,
        "enable_prefix_caching": spec.cache_prefixes,
        "gpu_memory_utilization": spec.gpu_memory,
        "tensor_parallel_size": spec.tensor_parallel,
        "pipeline_parallel_size": spec.pipeline_parallel,
        "enable_sleep_mode": can_sleep,
        "disable_log_stats": True,  # the default loggers; ours is added
    }
    if spec.dtype is not None:
        args["dtype"] = spec.dtype
    if spec.quantization is not None:
        args["quantization"] = spec.quantization
    if reasoning := spec.options.get("reasoning_parser"):
        args["reasoning_parser"] = reasoning  # so that a grammar binds the answer, not the reasoning
    if spec.adapters:
        args |= {
            "enable_lora": True,
            "max_loras": min(len(spec.adapters), 8),
            "max_lora_rank": _kernel_rank(largest_rank(spec.adapters)),
        }
    elif spec.options.get("enable_lora") is True:  # for adapters that are added while it runs
        args |= {"max_loras": ADDED_LORAS, "max_lora_rank": ADDED_RANK}
    return args | _extra_options(spec.options, set(known))


def configured(args: dict[str, Any], spec: LoadSpec) -> dict[str, Any]:
    """`engine_args` with vLLM's own objects where it wants them: for structures, for which, left to itself,
    it takes the backend of the first request that has one, and for what makes vectors of states; and with the
    most media that a request has here."""
    from vllm.config import PoolerConfig, StructuredOutputsConfig

    structures = args.get("structured_outputs_config", {})
    if isinstance(structures, dict):
        has_fast_tokenizer = (Path(args["model"]) / "tokenizer.json").is_file()
        chosen = {"backend": BACKEND} if has_fast_tokenizer else {}
        args = {**args, "structured_outputs_config": StructuredOutputsConfig(**{**chosen, **structures})}
    if describe(Path(args["model"])).senses and "limit_mm_per_prompt" not in args:
        # Else it would keep room for the longest video, which nobody can send.
        args = {**args, "limit_mm_per_prompt": {"image": MOST_MEDIA, "video": 0, "audio": 0}}
    if pools(spec):
        _, pooling = purpose(spec)
        kind = {} if pooling in (None, "rank") else {"seq_pooling_type": str(pooling).upper()}
        if spec.cache_prefixes and "enable_prefix_caching" not in spec.options:
            args = {**args, "enable_prefix_caching": None}  # vLLM knows: encoders have nothing to cache
        args = {"runner": "pooling", "pooler_config": PoolerConfig(**kind), **args}
    return args


def _kernel_rank(rank: int) -> int:
    for candidate in LORA_RANKS:
        if candidate >= rank:
            return candidate
    raise CannotLoad(f"vLLM runs LoRA adapters up to rank {LORA_RANKS[-1]}, not {rank}")


def _extra_options(options: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    extra = {name: value for name, value in options.items() if name not in OWN_OPTIONS}
    for name in extra:
        if name not in known:
            close = difflib.get_close_matches(name, [*known, *OWN_OPTIONS])
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise CannotLoad(f"vLLM has no option {name!r}{hint}")
    return extra


def kv_size(
    spec: LoadSpec,
    *,
    block_size: int,
    bytes_per_token: int,
    context_length: int,
    free_memory: int | None,
) -> KvSize:
    """How large to make the KV cache. ``free_memory`` in bytes is that of a CPU's RAM, None for GPUs.

    vLLM gives GPUs what their memory share leaves. For RAM it would take a share of the whole machine,
    so there it gets a size: room for every sequence, or a quarter of what is free.
    """
    tokens = spec.kv_cache_tokens
    if tokens is None:
        if free_memory is None:
            return KvSize()
        affordable = int(free_memory * AUTO_KV_MEMORY_SHARE) // max(1, bytes_per_token)
        tokens = min(context_length * spec.max_sequences, affordable)
    blocks = -(-tokens // block_size) + 1  # vLLM keeps one for itself
    return KvSize(blocks, None if free_memory is None else blocks * block_size * bytes_per_token)


def cpu_environment(spec: LoadSpec) -> dict[str, str]:
    """Environment for a start on the CPU: the cores that compute, if their number is given."""
    if spec.threads is None or not hasattr(os, "sched_getaffinity"):
        return {}
    cores = sorted(os.sched_getaffinity(0))[: spec.threads]
    ranks = max(1, spec.tensor_parallel * spec.pipeline_parallel)
    if len(cores) < ranks:
        raise CannotLoad(f"{ranks} parallel parts need as many threads, but there are {len(cores)}")
    shares = [cores[rank::ranks] for rank in range(ranks)]
    return {"VLLM_CPU_OMP_THREADS_BIND": "|".join(",".join(map(str, share)) for share in shares)}
