"""Automatic sizes: the context and the KV cache where nobody chose them, and the memory a load will take."""

from __future__ import annotations

from engines.errors import ModelLoadError
from engines.load_spec import LoadSpec
from engines.machine.platform import Facts
from engines.models import projectors
from engines.models.facts import ModelFacts, describe

LONGEST_AUTO_CONTEXT = 8192
"""Tokens: the longest context that is taken unasked, however long a one the model was trained for."""

AUTO_KV_MEMORY_SHARE = 0.25
"""Unasked, a KV cache in main memory takes at most this part of what is free."""

WORK_SPACE = 64 * 2**20
"""Bytes for intermediate results, beside weights and KV cache: what was measured with small models."""


def auto_context(trained: int | None) -> int:
    """The context in tokens for a model that was trained for ``trained``, 0 or None if that is unknown."""
    return min(trained or LONGEST_AUTO_CONTEXT, LONGEST_AUTO_CONTEXT)


def memory_of(spec: LoadSpec, *, weights_loaded: bool = False) -> int:
    """Bytes that the model takes once loaded, by its file's header: weights, adapters, KV cache, work space.

    The KV cache, where its size is not given, counts with room for two sequences. Raises `ModelLoadError`.
    """
    if spec.path is None:
        raise ModelLoadError(f"there is no file of the model {spec.name}")
    facts = describe(spec.path)
    context = spec.context_length or auto_context(facts.context_length)
    kv = (spec.kv_cache_tokens or 2 * context) * facts.kv_bytes_per_token
    weights = facts.weight_bytes + sum(adapter.nbytes for adapter in spec.adapters)
    return (0 if weights_loaded else weights + _memory_to_see(spec, facts)) + kv + WORK_SPACE


def _memory_to_see(spec: LoadSpec, facts: ModelFacts) -> int:
    """Bytes of a model's projector, and of the embeddings that are kept."""
    if spec.projector is None:
        return 0
    kept = projectors.kept_numbers(facts.context_length, facts.embedding_length)
    return projectors.read(spec.projector).weight_bytes + 4 * kept


def may_use_cuda(spec: LoadSpec, machine: Facts) -> bool:
    """Whether an engine that can compute with CUDA would do so."""
    return machine.cuda and spec.use_gpu is not False
