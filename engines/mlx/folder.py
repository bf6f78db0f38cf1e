"""A model's folder and its load settings, checked before anything heavy is imported or read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.errors import BadModelFile, CannotLoad, ModelFileNotFound
from engines.models import hf

if TYPE_CHECKING:
    from engines.load_spec import LoadSpec

DTYPES = ("float32", "float16", "bfloat16")
_LONGEST_HEADER = 100 * 2**20  # the safetensors format's own limit, in bytes


def check_settings(spec: LoadSpec) -> None:
    """Raise `ModelLoadError` for settings that the MLX engine does not have."""
    if spec.adapters:
        raise CannotLoad("the MLX engine has no adapters: fuse one into the model with `mlx_lm.fuse`")
    if spec.options:
        raise CannotLoad(f"the MLX engine has no option {min(spec.options)!r}; it takes no options")
    if spec.tensor_parallel != 1 or spec.pipeline_parallel != 1:
        raise CannotLoad("the MLX engine runs on one device: leave the parallel sizes at 1")
    if spec.dtype not in (None, "auto", *DTYPES):
        raise CannotLoad(f"the MLX engine has no dtype {spec.dtype!r}: use auto, {', '.join(DTYPES)}")


def check_folder(path: Path | None) -> tuple[Path, dict[str, Any]]:
    """The folder and its ``config.json``. Raises `ModelLoadError` if the model cannot be in there."""
    if path is None:
        raise BadModelFile("MLX needs a model folder")
    if path.suffix.lower() == ".gguf":
        raise BadModelFile(
            f"{path.name} is a GGUF file, which the llama_cpp engine reads; MLX needs a folder in "
            "Hugging Face's format (config.json, *.safetensors, tokenizer.json)"
        )
    if not path.is_dir():
        raise ModelFileNotFound(f"there is no folder {path}")
    if not any(path.glob("model*.safetensors")):
        raise BadModelFile(f"{path} has no model*.safetensors: download the model again, weights included")
    folder = hf.read_folder(path)
    if not isinstance(folder.config.get("model_type"), str):
        raise BadModelFile(f"{path / hf.CONFIG} names no model_type")
    for shard in folder.weights:
        _check_complete(shard)
    return path, dict(folder.config)


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
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise BadModelFile(f"{shard} is broken ({error}): download it again") from error
    if size != expected:
        raise BadModelFile(f"{shard} is broken: it has {size} of {expected} bytes; download it again")
