"""Folders in Hugging Face's format: whether they are whole, and what they say of the model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engines.errors import BadModelFile
from engines.models.imposters import imposter

TOKENIZER = "tokenizer_config.json"
CONFIG = "config.json"
MAX_JSON_BYTES = 64 * 2**20
# Weights of one model may be there in several forms; the first form found is what engines load.
_WEIGHT_PATTERNS = ("model*.safetensors", "*.safetensors", "pytorch_model*.bin", "*.bin")
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_TOKENIZERS = ("tokenizer*", "vocab*", "*.tiktoken", "tekken.json", "spiece.model", "*.vocab")
# safetensors files begin with the header's length and the metadata.
_METADATA_BYTES = 4096
_LONGEST_HEADER = 100 * 2**20  # the format's own limit
# Bytes by which it shows what a file is.
_BEGINNING = 64
# What configurations call the part that sees, or hears.
_PARTS = {
    "vision": ("vision_config", "visual", "vision_tower", "mm_vision_tower", "vit_config", "img_processor"),
    "audio": ("audio_config", "audio_processor", "audio_encoder_config"),
}
_MLX_METADATA = b'"format":"mlx"'

Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class HfFolder:
    """A complete model in a folder. ``format`` is ``mlx`` if only MLX can load it."""

    path: Path
    config: Config
    format: Literal["hf", "mlx"]
    weights: tuple[Path, ...]

    @property
    def weight_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.weights)


def read_folder(path: Path) -> HfFolder:
    """The model in the folder ``path``. Raises `BadModelFile`, saying what is missing or wrong."""
    config = read_config(path)
    weights = weight_files(path)
    if not weights:
        raise BadModelFile(f"{path.name} has no weights: neither *.safetensors nor *.bin files")
    if not any(next(path.glob(pattern), None) for pattern in _TOKENIZERS):
        raise BadModelFile(f"{path.name} has no tokenizer: download the repository's other files too")
    return HfFolder(path, config, "mlx" if is_for_mlx(config) or _says_mlx(weights[0]) else "hf", weights)


def read_config(folder: Path) -> Config:
    """The folder's ``config.json``. Raises `BadModelFile`."""
    path = folder / CONFIG
    if not path.is_file():
        raise BadModelFile(f"{folder} has no {CONFIG}: it cannot be read as a model in Hugging Face's format")
    return read_json(path)


def read_json(path: Path) -> Config:
    """The object in a JSON file. Raises `BadModelFile`."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise BadModelFile(f"{path} is larger than {MAX_JSON_BYTES:,} bytes: it is no configuration")
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BadModelFile(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise BadModelFile(f"{path} cannot be read: it holds no JSON object")
    return value


def text_config(config: Config) -> Config:
    """The part of ``config`` about the language model; models that also see nest it."""
    nested = config.get("text_config")
    return {**config, **nested} if isinstance(nested, dict) else config


def architecture(config: Config) -> str:
    names = config.get("architectures")
    if isinstance(names, list) and names and isinstance(names[0], str):
        return names[0]
    kind = config.get("model_type")
    return kind if isinstance(kind, str) else ""


def context_length(config: Config) -> int:
    """Tokens the model was made for; 0 if the configuration does not say."""
    return _number(text_config(config), "max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")


def hidden_size(config: Config) -> int:
    """Numbers in the state of a token; 0 if the configuration does not say."""
    return _number(text_config(config), "hidden_size", "n_embd", "d_model")


def kv_bytes_per_token(config: Config, element_bytes: int = 2) -> int:
    """What one token takes in the KV cache, in bytes; by default in 16 bits a number.

    Layers with a sliding window count in full, so this is an upper bound for them.
    """
    text = text_config(config)
    latent = _number(text, "kv_lora_rank")  # multi-head latent attention caches one vector for all heads
    if latent:
        return _attention_layers(text) * (latent + _number(text, "qk_rope_head_dim")) * element_bytes
    heads = _number(text, "num_attention_heads", "n_head")
    kv_heads = _number(text, "num_key_value_heads") or heads
    width = _number(text, "head_dim") or _number(text, "hidden_size", "n_embd") // max(1, heads)
    return _attention_layers(text) * 2 * kv_heads * width * element_bytes


def senses(config: Config) -> frozenset[str]:
    """Those of "vision" and "audio" that the model has, by the parts of it that are described."""
    return frozenset(sense for sense, parts in _PARTS.items() if any(config.get(part) for part in parts))


def quantization(config: Config) -> str | None:
    """How the weights are quantised, such as ``4bit`` (MLX), ``awq`` or ``fp8``."""
    made_by_mlx = config.get("quantization")
    if isinstance(made_by_mlx, dict) and isinstance(made_by_mlx.get("bits"), int):
        return f"{made_by_mlx['bits']}bit"
    declared = text_config(config).get("quantization_config")
    method = declared.get("quant_method") if isinstance(declared, dict) else None
    return method if isinstance(method, str) else None


def chat_template(path: Path) -> str:
    """The folder's chat templates, in files of their own or in the tokenizer's configuration; or nothing."""
    for name in ("chat_template.jinja", "chat_template.json"):
        if (path / name).is_file():
            return (path / name).read_text("utf-8", "replace")
    tokenizer = path / TOKENIZER
    return str(read_json(tokenizer).get("chat_template") or "") if tokenizer.is_file() else ""


def special_names(path: Path) -> frozenset[str]:
    """The names of the special tokens that the tokenizer's configuration lists."""
    tokenizer = path / TOKENIZER
    added = read_json(tokenizer).get("added_tokens_decoder") if tokenizer.is_file() else None
    tokens = added.values() if isinstance(added, dict) else ()
    return frozenset(str(token.get("content")) for token in tokens if isinstance(token, dict))


def weight_files(path: Path) -> tuple[Path, ...]:
    """The weight files of the folder, in the form that engines load.

    Raises `BadModelFile` if the index names some that are not there.
    """
    for index in _INDEXES:
        if (path / index).is_file():
            return _indexed(path, path / index)
    for pattern in _WEIGHT_PATTERNS:
        found = tuple(sorted(file for file in path.glob(pattern) if file.is_file()))
        if found:
            return found
    return ()


def check_weights(weights: tuple[Path, ...]) -> None:
    """Raise `BadModelFile` unless the weights are there and whole, as far as their headers say."""
    for shard in weights:
        with shard.open("rb") as file:
            beginning = file.read(_BEGINNING)
        if (other := imposter(beginning)) is not None:
            raise BadModelFile(f"{shard.name} {other}")
        if shard.suffix == ".safetensors":
            _check_complete(shard)


def _check_complete(shard: Path) -> None:
    """A safetensors file says how long it is: 8 bytes header length, the header, then its tensors."""
    size = shard.stat().st_size
    try:
        with shard.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(size, _LONGEST_HEADER):
                raise ValueError("its header is cut off")
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        expected = 8 + length + max(ends, default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise BadModelFile(f"{shard} is broken ({error}): download it again") from error
    if size != expected:
        raise BadModelFile(f"{shard} is broken: it has {size} of {expected} bytes; download it again")


def _indexed(path: Path, index: Path) -> tuple[Path, ...]:
    shards = read_json(index).get("weight_map")
    names = set(shards.values()) if isinstance(shards, dict) and _all_text(shards.values()) else set()
    if not names or any("/" in name or "\\" in name or "\0" in name for name in names):
        raise BadModelFile(f"{index} is damaged: it does not map weights to files. Download it again")
    missing = sorted(name for name in names if not (path / name).is_file())
    if missing:
        raise BadModelFile(
            f"{path.name} is incomplete: {len(missing)} of {len(names)} weight files are missing, "
            f"{missing[0]} for one. Pull the model again to go on"
        )
    return tuple(path / name for name in sorted(names))


def _all_text(values: Any) -> bool:
    return all(isinstance(value, str) for value in values)


def is_for_mlx(config: Config) -> bool:
    """Whether the weights were quantised for MLX, so that nothing else can load them."""
    declared = config.get("quantization")
    return isinstance(declared, dict) and {"group_size", "bits"} <= declared.keys()


def _says_mlx(weights: Path) -> bool:
    """Whether MLX wrote the file."""
    if weights.suffix != ".safetensors":
        return False
    with weights.open("rb") as file:
        return _MLX_METADATA in file.read(_METADATA_BYTES).replace(b" ", b"")


def _attention_layers(text: Config) -> int:
    """Layers that keep keys and values. In hybrid models others have a state of fixed size instead."""
    kinds = text.get("layer_types")
    if isinstance(kinds, list) and _all_text(kinds):
        return sum("attention" in kind and "linear" not in kind for kind in kinds)
    return _number(text, "num_hidden_layers", "n_layer")


def _number(config: Config, *names: str) -> int:
    """The first of ``names`` that is a positive whole number, or 0."""
    values = (config.get(name) for name in names)
    return next((v for v in values if isinstance(v, int) and not isinstance(v, bool) and v > 0), 0)
