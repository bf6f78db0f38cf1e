"""LoRA adapters: small changes of a model's weights, which requests choose by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter: its name, its GGUF file or its folder (PEFT's or mlx-lm's), and how much it counts."""

    name: str
    path: Path
    scale: float = 1.0

    @property
    def nbytes(self) -> int:
        """The size of its weights; 0 if they are not there."""
        files = [self.path] if self.path.is_file() else self.path.glob("*.safetensors")
        return sum(file.stat().st_size for file in files if file.is_file())
