"""A model's folder and its load settings, checked before anything heavy is imported or read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.errors import BadModelFile, CannotLoad, ModelFileNotFound
from engines.mlx.adapter_folder import check_adapters
from engines.models import hf
from engines.models.purpose import Pooling

if TYPE_CHECKING:
    from engines.load_spec import LoadSpec

_ELSEWHERE = "use llama_cpp with the model's GGUF file, or vllm"
# Architectures whose models see a text as a whole, beside all that say so.
_ENCODERS = re.compile(r".*bert.*|mpnet|nomic.*|electra|deberta.*|canine|u?m?t5.*|gte|new")
# A part of sentence-transformers' models behind the pooling that changes the vectors.
_DENSE = "sentence_transformers.models.Dense"
DTYPES = ("float32", "float16", "bfloat16")


def check_settings(spec: LoadSpec) -> None:
    """Raise `CannotLoad` for settings that the MLX engine does not have."""
    check_adapters(spec.adapters)
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
    hf.check_weights(folder.weights)
    return path, dict(folder.config)


def check_pools(path: Path, config: dict[str, Any], pooling: Pooling | None) -> Pooling:
    """How the states of an embedding model are pooled. Raises `CannotLoad` for a model that is no decoder, or
    from whose states alone its vectors cannot be made."""
    kind = config["model_type"]
    if _ENCODERS.fullmatch(kind):
        raise CannotLoad(
            f"MLX makes embeddings with decoder models only, and {kind} is an encoder: {_ELSEWHERE}"
        )
    if config.get("use_bidirectional_attention") or config.get("is_causal") is False:
        raise CannotLoad(
            f"MLX makes embeddings with decoder models only, and this {kind} model looks ahead in its texts: "
            f"{_ELSEWHERE}"
        )
    modules = path / "modules.json"
    if modules.is_file() and _DENSE in modules.read_text("utf-8", "replace"):
        raise CannotLoad(f"MLX lacks the dense layers behind the pooling of this {kind} model: {_ELSEWHERE}")
    if pooling == "rank":
        raise CannotLoad(f"MLX does not rank documents with {kind} models of this kind: {_ELSEWHERE}")
    if pooling is None:
        raise CannotLoad(
            f"{path} does not say how its states become one vector (there is no 1_Pooling/config.json): say "
            "`pooling: last`, `mean` or `cls` for this model in models.yaml"
        )
    return pooling
