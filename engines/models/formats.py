"""Forms in which models are kept on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ModelFormat = Literal["gguf", "hf", "mlx"]


@dataclass(frozen=True, slots=True)
class FormatText:
    """A format for people: such a model, such models, and what to do if no engine here loads it."""

    one: str
    many: str
    otherwise: str


FORMAT_TEXTS: dict[ModelFormat, FormatText] = {
    "gguf": FormatText("a GGUF file", "GGUF files", "pull the model in Hugging Face format"),
    "hf": FormatText(
        "a Hugging Face folder",
        "Hugging Face folders",
        "pull a GGUF variant of it, or convert it (llama.cpp's convert_hf_to_gguf.py)",
    ),
    "mlx": FormatText(
        "a folder that was converted for MLX",
        "folders that were converted for MLX",
        "pull the original or a GGUF variant",
    ),
}
