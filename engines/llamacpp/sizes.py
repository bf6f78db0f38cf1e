"""Sizes of a context and its KV cache, from what was asked for and what memory is free."""

from __future__ import annotations

from engines.llamacpp.context import ContextSize
from engines.llamacpp.model import LlamaModel
from engines.llamacpp.options import LlamaOptions
from engines.sizing import AUTO_KV_MEMORY_SHARE, WORK_SPACE, auto_context

CELL_GRANULE = 256  # llama.cpp rounds contexts up to this
# A full context for every sequence is taken unasked if it is this cheap.
AUTO_SPLIT_MEMORY_SHARE = 1 / 16


def choose_sizes(options: LlamaOptions, model: LlamaModel, free_memory: int) -> tuple[int, ContextSize]:
    """Context length in tokens, and the size and layout of the KV cache; ``free_memory`` in bytes.

    Given sizes are kept; a context never exceeds the cells. A cache that holds a full context for every
    sequence is split, as there is nothing to gain from a pool then.
    """
    context = options.context_length or auto_context(model.n_ctx_train)
    affordable = free_memory // max(1, model.kv_bytes_per_token())
    whole = _round_up(context) * options.max_sequences
    cells = options.kv_cells
    if cells is None and whole <= affordable * AUTO_SPLIT_MEMORY_SHARE:
        cells = whole
    elif cells is None:
        least = context if options.context_length else CELL_GRANULE
        cells = max(min(2 * context, int(affordable * AUTO_KV_MEMORY_SHARE)), least)
    cells = _round_up(cells)
    context = min(context, cells)
    if cells >= whole:
        return context, ContextSize(cells=whole, slots=options.max_sequences, pooled=False)
    slots = options.max_sequences + (options.cached_prefixes if options.cache_prefixes else 0)
    return context, ContextSize(cells=cells, slots=slots)


def stash_limit(size: ContextSize, context_length: int) -> int:
    """Tokens that the stash of a pool may hold: half of what the pool does, and a whole context."""
    return max(size.cells // 2, context_length) if size.pooled else 0


def memory_of(model: LlamaModel, tokens: int) -> int:
    """Bytes that weights, work space and ``tokens`` in the KV cache and its stash take."""
    return weights_of(model) + tokens * model.kv_bytes_per_token() + WORK_SPACE


def weights_of(model: LlamaModel) -> int:
    """Bytes that stay while the model sleeps: its weights, and its projector with the embeddings it keeps."""
    projector = model.projector
    return model.size + (0 if projector is None else projector.size + projector.kept.nbytes)


def _round_up(cells: int) -> int:
    return -(-cells // CELL_GRANULE) * CELL_GRANULE
