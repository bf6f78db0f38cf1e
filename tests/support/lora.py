"""LoRA adapters of random numbers, in llama.cpp's format and in PEFT's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import save_file

from engines.models.gguf import read_table


def lora_gguf(
    path: Path,
    base: Path,
    *,
    seed: int = 1,
    rank: int = 4,
    strength: float = 0.05,
    metadata: Mapping[str, str | float] | None = None,
    shapes: Mapping[str, tuple[int, int]] | None = None,
) -> Path:
    """An adapter of the attention of the GGUF model ``base``, written to ``path``. ``metadata`` replaces some
    of what it says of itself, ``shapes`` the sizes (out, in) of tensors."""
    table, random = read_table(base), np.random.default_rng(seed)
    said: dict[str, str | float] = {"general.architecture": str(table.metadata["general.architecture"])}
    said |= {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 2.0 * rank}
    said |= metadata or {}
    writer = gguf.GGUFWriter(path, str(said.pop("general.architecture")))
    for key, value in said.items():
        if isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_float32(key, value)
    targets = {
        name: (entry.shape[1], entry.shape[0])
        for name, entry in table.tensors.items()
        if name.endswith(("attn_q.weight", "attn_v.weight", "ffn_down.weight"))
    }
    for name, (outputs, inputs) in (targets | dict(shapes or {})).items():
        halves = {"lora_a": (rank, inputs), "lora_b": (outputs, rank)}
        for half, shape in halves.items():
            writer.add_tensor(f"{name}.{half}", random.normal(0, strength, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def lora_folder(
    path: Path, base: Path, *, seed: int = 1, rank: int = 4, strength: float = 0.05, form: str = "peft"
) -> Path:
    """An adapter of the attention of the Hugging Face model in ``base``: in PEFT's format, or mlx-lm's."""
    config = json.loads((base / "config.json").read_text())
    width, heads, layers = (
        config[key] for key in ("hidden_size", "num_attention_heads", "num_hidden_layers")
    )
    narrow = config.get("num_key_value_heads", heads) * config.get("head_dim", width // heads)
    sizes = {"q_proj": (width, heads * config.get("head_dim", width // heads)), "v_proj": (width, narrow)}
    random = np.random.default_rng(seed)
    weights: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = {}
    for layer in range(layers):
        for name, (inputs, outputs) in sizes.items():
            a = random.normal(0, strength, (rank, inputs)).astype(np.float32)
            b = random.normal(0, strength, (outputs, rank)).astype(np.float32)
            place = f"model.layers.{layer}.self_attn.{name}"
            if form == "peft":
                place = f"base_model.model.{place}"
                weights |= {f"{place}.lora_A.weight": a, f"{place}.lora_B.weight": b}
            else:
                weights |= {f"{place}.lora_a": a.T.copy(), f"{place}.lora_b": b.T.copy()}
    path.mkdir()
    peft = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": sorted(sizes)}
    keys = [f"self_attn.{name}" for name in sizes]
    parameters = {"rank": rank, "scale": 2.0, "dropout": 0.0, "keys": keys}
    mlx = {"fine_tune_type": "lora", "num_layers": layers, "lora_parameters": parameters}
    (path / "adapter_config.json").write_text(json.dumps(peft if form == "peft" else mlx))
    save_file(weights, path / ("adapter_model.safetensors" if form == "peft" else "adapters.safetensors"))
    return path
