"""Facts of a model on disk, without loading it: enough to choose an engine and to estimate memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engines.errors import BadModelFile, ModelFileNotFound
from engines.models import gguf, hf
from engines.models.formats import ModelFormat


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """``context_length`` in tokens, 0 if unknown; ``kv_bytes_per_token`` an upper bound, at 16 bits each."""

    format: ModelFormat
    architecture: str
    context_length: int
    kv_bytes_per_token: int
    weight_bytes: int
    has_chat_template: bool
    quantization: str | None


def describe(path: Path) -> ModelFacts:
    """The facts of a GGUF file or a folder in Hugging Face's format; reads headers only.

    Raises `ModelFileNotFound`, and `BadModelFile` for what is damaged, cut off or incomplete.
    """
    if path.is_dir():
        return _of_folder(path)
    if path.exists():
        return _of_gguf(path)
    raise ModelFileNotFound(f"there is no model {path}")


def _of_gguf(path: Path) -> ModelFacts:
    header = gguf.read_header(path)
    return ModelFacts(
        format="gguf",
        architecture=header.architecture,
        context_length=header.context_length,
        kv_bytes_per_token=header.kv_bytes_per_token(),
        weight_bytes=header.tensor_bytes,
        has_chat_template=header.has_chat_template,
        quantization=header.quantization,
    )


def _of_folder(path: Path) -> ModelFacts:
    try:
        folder = hf.read_folder(path)
        return ModelFacts(
            format=folder.format,
            architecture=hf.architecture(folder.config),
            context_length=hf.context_length(folder.config),
            kv_bytes_per_token=hf.kv_bytes_per_token(folder.config),
            weight_bytes=folder.weight_bytes,
            has_chat_template=hf.has_chat_template(path),
            quantization=hf.quantization(folder.config),
        )
    except OSError as error:  # a file went away meanwhile, or may not be read
        raise BadModelFile(f"{path} cannot be read: {error}") from error
