"""A model small enough that a test of the real engine takes a fraction of a second."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from support.models import copy_but_weights, smollm2_folder

# They compute with MLX, which is not everywhere.
collect_ignore = (
    [] if find_spec("mlx") else ["test_engine.py", "test_model.py", "test_prefixes.py", "test_sampling.py"]
)

TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2's tokenizer and architecture with two layers of random weights."""
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.models import llama

    folder = tmp_path_factory.mktemp("models") / "tiny"
    config = copy_but_weights(smollm2_folder(), folder, TINY)
    mx.random.seed(1)
    shapes = tree_flatten(llama.Model(llama.ModelArgs.from_dict(config)).parameters())
    weights = {name: mx.random.normal(array.shape) * 0.3 for name, array in shapes}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    return folder
