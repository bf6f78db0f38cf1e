"""vLLM's caches of models, which live as long as the process."""

from __future__ import annotations

import functools
import gc
import sys


def forget_models() -> None:
    """Empty vLLM's own caches after an engine was closed.

    Some of its functions are cached without bounds by arguments such as the tokenizer, which keeps three
    tokenizers of every model that was ever loaded: some 50 MiB each time. What another engine of this
    process still needs of them is only computed again.
    """
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] != "vllm" or module is None:
            continue
        for value in list(vars(module).values()):
            if isinstance(value, functools._lru_cache_wrapper):
                value.cache_clear()
    gc.collect()
