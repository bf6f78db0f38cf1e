"""A LoRA adapter's folder, in PEFT's format or in mlx-lm's, read without MLX."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.base import Adapter
from engines.errors import BadModelFile, CannotLoad, ModelFileNotFound
from engines.models import hf

CONFIG = "adapter_config.json"
_PEFT, _MLX = "adapter_model.safetensors", "adapters.safetensors"
_PEFT_PREFIX = "base_model.model."
_PEFT_ENDS, _MLX_ENDS = (".lora_A.weight", ".lora_B.weight"), (".lora_a", ".lora_b")


@dataclass(frozen=True, slots=True)
class AdapterFolder:
    """Where an adapter's ``weights`` are, and how they count: ``alpha`` over the rank (or its root), in
    mlx-lm's format just ``alpha``."""

    name: str
    weights: Path
    is_peft: bool
    alpha: float
    by_root: bool = False

    def scale(self, rank: int) -> float:
        """The factor of a layer's change."""
        if not self.is_peft:
            return self.alpha
        return self.alpha / (math.sqrt(rank) if self.by_root else rank)

    def paths(self, names: Iterable[str]) -> list[str]:
        """The layers that tensors of these ``names`` belong to. Raises `BadModelFile` for other tensors."""
        ends = _PEFT_ENDS if self.is_peft else _MLX_ENDS
        found: dict[str, None] = {}
        for name in names:
            if not name.endswith(ends):
                raise BadModelFile(f"the adapter {self.name} has {name}, which is no part of a LoRA")
            found[name.removeprefix(_PEFT_PREFIX)[: -len(ends[0])]] = None
        return list(found)

    def halves(self, path: str, weights: Mapping[str, Any]) -> tuple[Any, Any]:
        """The two halves of a layer's change, as (input, rank) and (rank, output)."""
        prefix, ends = (_PEFT_PREFIX, _PEFT_ENDS) if self.is_peft else ("", _MLX_ENDS)
        a, b = (weights.get(prefix + path + end) for end in ends)
        if a is None or b is None:
            raise BadModelFile(f"the adapter {self.name} has only one half of {path}")
        return (a.T, b.T) if self.is_peft else (a, b)


def check_adapters(adapters: Iterable[Adapter]) -> None:
    """Raise `ModelLoadError` for one that MLX cannot run."""
    for adapter in adapters:
        read_folder(adapter)


def read_folder(adapter: Adapter) -> AdapterFolder:
    """Raises `ModelLoadError`."""
    name, path = adapter.name, adapter.path
    if not path.exists():
        raise ModelFileNotFound(f"there is no {path} of the adapter {name}")
    config = path / CONFIG
    if not config.is_file():
        raise BadModelFile(f"the adapter {name} has no {config}: MLX needs a folder of PEFT's or mlx-lm's")
    said = hf.read_json(config)
    is_peft = "peft_type" in said or "r" in said
    weights = path / (_PEFT if is_peft else _MLX)
    if not weights.is_file():
        raise BadModelFile(f"the adapter {name} has no {weights}")
    if is_peft:
        return _of_peft(adapter, said, weights)
    parameters = said.get("lora_parameters")
    if said.get("fine_tune_type", "lora") != "lora" or not isinstance(parameters, dict):
        kind = said.get("fine_tune_type")
        raise CannotLoad(f"the adapter {name} is no LoRA ({kind}): fuse it into the model with `mlx_lm.fuse`")
    return AdapterFolder(name, weights, False, _number(config, "scale", parameters) * adapter.scale)


def _of_peft(adapter: Adapter, said: Mapping[str, Any], weights: Path) -> AdapterFolder:
    odd = [key for key in ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save") if said.get(key)]
    if said.get("peft_type", "LORA") != "LORA" or said.get("bias", "none") != "none":
        odd.append("peft_type or bias")
    if odd:
        raise CannotLoad(f"the adapter {adapter.name} has {', '.join(odd)}, which MLX does not run here")
    alpha = _number(weights.with_name(CONFIG), "lora_alpha", said) * adapter.scale
    return AdapterFolder(adapter.name, weights, True, alpha, bool(said.get("use_rslora")))


def _number(config: Path, key: str, said: Mapping[str, Any]) -> float:
    value = said.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise BadModelFile(f"{config} says no {key}")
    return float(value)
