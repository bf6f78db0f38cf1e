"""All that is used of mlx-lm. Import it from here, as importing it has a side effect to be undone."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _file_limit_kept() -> Iterator[None]:
    """mlx-lm lowers this process's limit of open files when it is imported, for good unless root. A server
    needs its sockets."""
    setrlimit = resource.setrlimit
    resource.setrlimit = lambda *_: None
    try:
        yield
    finally:
        resource.setrlimit = setrlimit


with _file_limit_kept():
    from mlx_lm.generate import BatchGenerator, StopSequences
    from mlx_lm.models.cache import can_trim_prompt_cache, make_prompt_cache, trim_prompt_cache
    from mlx_lm.utils import load_model, load_tokenizer

__all__ = [
    "BatchGenerator",
    "StopSequences",
    "can_trim_prompt_cache",
    "load_model",
    "load_tokenizer",
    "make_prompt_cache",
    "trim_prompt_cache",
]
