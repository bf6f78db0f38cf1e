"""LoRA adapters of random numbers, in llama.cpp's format and in PEFT's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np

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
