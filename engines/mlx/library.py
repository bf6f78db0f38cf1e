"""All that is used of mlx-lm. Import it from here, as importing it has a side effect to be undone."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


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
    from mlx_lm.utils import _get_classes, load_model, load_tokenizer


def load_states(path: Path, *, lazy: bool) -> tuple[Any, dict[str, Any]]:
    """As `load_model`, of which only the states are used: the weights may be those of the inner model alone,
    as sentence-transformers writes them, without those that make logits."""

    def classes(config: dict[str, Any]) -> tuple[type[Any], type[Any]]:
        outer, arguments = _get_classes(config=config)

        class Bare(outer):  # type: ignore[misc, valid-type]
            def sanitize(self, weights: dict[str, Any]) -> dict[str, Any]:
                if not any(name.startswith(("model.", "language_model.")) for name in weights):
                    weights = {f"model.{name}": array for name, array in weights.items()}
                tidy = getattr(super(), "sanitize", None)
                return weights if tidy is None else dict(tidy(weights))

        return Bare, arguments

    tied = {"tie_word_embeddings": True}  # then logits need no weights of their own
    model, config = load_model(path, lazy=lazy, model_config=tied, get_model_classes=classes)
    return model, config


__all__ = [
    "BatchGenerator",
    "StopSequences",
    "can_trim_prompt_cache",
    "load_model",
    "load_states",
    "load_tokenizer",
    "make_prompt_cache",
    "trim_prompt_cache",
]
