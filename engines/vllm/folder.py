"""What a model folder holds, judged before vLLM is imported and started in vain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engines.errors import ModelLoadError
from engines.load_spec import Adapter

WEIGHTS = (".safetensors", ".bin", ".pt")


def check_folder(path: Path | None) -> Path:
    """The folder, if vLLM can read it. Raises `ModelLoadError` that says what to do."""
    if path is None:
        raise ModelLoadError("vLLM needs a model folder in Hugging Face's format")
    if not path.exists():
        raise ModelLoadError(f"there is no {path}")
    if path.suffix.lower() == ".gguf":
        raise ModelLoadError(
            f"{path.name} is a GGUF file, which llama.cpp runs: use the engine llama_cpp, "
            "or give vLLM the model's folder in Hugging Face's format"
        )
    if not (path / "config.json").is_file():
        raise ModelLoadError(f"{path} has no config.json: it is no model folder in Hugging Face's format")
    quantization = _read_json(path / "config.json").get("quantization")
    if isinstance(quantization, dict) and {"group_size", "bits"} <= quantization.keys():
        raise ModelLoadError(
            f"the weights in {path} are quantised for MLX: use the engine mlx, or the original weights"
        )
    return path


def weight_bytes(path: Path) -> int:
    """Size of the weight files."""
    return sum(file.stat().st_size for file in path.iterdir() if file.suffix in WEIGHTS)


def largest_rank(adapters: tuple[Adapter, ...]) -> int:
    """The largest rank of LoRA adapters. Raises `ModelLoadError` for one that is not in PEFT's format."""
    ranks = []
    for adapter in adapters:
        config = adapter.path / "adapter_config.json"
        if not config.is_file():
            raise ModelLoadError(f"the adapter {adapter.name} has no {config}: PEFT's format is needed")
        rank = _read_json(config).get("r")
        if not isinstance(rank, int) or rank < 1:
            raise ModelLoadError(f"{config} says no rank (`r`): is it a LoRA adapter?")
        ranks.append(rank)
    return max(ranks, default=0)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ModelLoadError(f"{path} is no JSON object")
    return value
