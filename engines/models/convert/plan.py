"""What a conversion makes, of what, and where it is kept."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engines.errors import CannotLoad, ModelLoadError
from engines.machine.platform import ModelFormat
from engines.models import gguf, hf
from engines.models.facts import describe
from engines.models.gguf_types import FILE_TYPES

FOLDER = ".enginehouse"

# llama.cpp makes the others only with an importance matrix.
_LLAMA_TYPES = (
    *("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S", "Q4_K_M"),
    *("Q5_K_S", "Q5_K_M", "Q6_K", "IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M", "IQ4_NL", "IQ4_XS"),
    *("TQ1_0", "TQ2_0", "MXFP4_MOE", "F16", "BF16", "F32"),
)
_MLX_BITS = {"4bit": 4, "8bit": 8, "q4": 4, "q8": 8}
_FULL_PRECISION = ("F32", "F16", "BF16", None)
_FIRST_PART = re.compile(r"-00001-of-\d{5}$")
_NUMBERS = {name: number for number, name in FILE_TYPES.items()}

Tool = Literal["llama.cpp", "mlx"]


@dataclass(frozen=True, slots=True)
class Plan:
    """A conversion to do. ``level`` is llama.cpp's file type, or MLX's bits a weight.

    ``stamp`` (JSON values) is different whenever the result would be. ``source_bytes`` is the size of the
    source's weights; ``degrades`` says that they are quantised already, so that quality is lost twice.
    """

    tool: Tool
    source: Path
    target: Path
    level: int
    name: str
    stamp: Mapping[str, Any]
    source_bytes: int
    degrades: bool


def make_plan(source: Path, quantization: str, format: ModelFormat, fallback_dir: Path) -> Plan | None:
    """How to get ``source`` in ``quantization``; None if it already is. Raises `ModelLoadError`."""
    if format == "gguf":
        return _for_llama_cpp(source, quantization, fallback_dir)
    return _for_mlx(source, quantization, fallback_dir)


def _for_llama_cpp(source: Path, quantization: str, fallback_dir: Path) -> Plan | None:
    name = quantization.upper()
    if name not in _LLAMA_TYPES:
        known = ", ".join(_LLAMA_TYPES).lower()
        raise CannotLoad(f"llama.cpp cannot quantise to {quantization!r}: choose one of {known}")
    facts = describe(source)
    if facts.quantization == name:
        return None
    stem = _FIRST_PART.sub("", source.stem)
    return Plan(
        tool="llama.cpp",
        source=source,
        target=_kept_in(source, source.parent, fallback_dir, f"{stem}.{name.lower()}.gguf"),
        level=_NUMBERS[name],
        name=name.lower(),
        stamp=_stamp(name, "llama-cpp-python", gguf.part_paths(source)),
        source_bytes=facts.weight_bytes,
        degrades=facts.quantization not in _FULL_PRECISION,
    )


def _for_mlx(source: Path, quantization: str, fallback_dir: Path) -> Plan | None:
    bits = _MLX_BITS.get(quantization.lower())
    if bits is None:
        raise CannotLoad(f"MLX cannot quantise to {quantization!r}: choose one of {', '.join(_MLX_BITS)}")
    facts, name = describe(source), f"{bits}bit"
    if facts.quantization == name:
        return None
    if facts.quantization is not None:
        raise CannotLoad(
            f"{source.name} is quantised already ({facts.quantization}) and MLX cannot change that: "
            "drop `quantization`, or pull the model's original"
        )
    folder = hf.read_folder(source)
    return Plan(
        tool="mlx",
        source=source,
        target=_kept_in(source, source, fallback_dir, f"{source.name}.{name}"),
        level=bits,
        name=name,
        stamp=_stamp(name, "mlx-lm", (source / hf.CONFIG, *folder.weights)),
        source_bytes=facts.weight_bytes,
        degrades=False,
    )


def _kept_in(source: Path, folder: Path, fallback_dir: Path, name: str) -> Path:
    """Beside the model; in ``fallback_dir`` if that cannot be written to, or is a Python package's."""
    if os.access(folder, os.W_OK) and not (folder / "__init__.py").exists():
        return folder / FOLDER / name
    origin = hashlib.sha256(str(source.absolute()).encode()).hexdigest()[:8]
    return fallback_dir / FOLDER / f"{origin}-{name}"


def _stamp(name: str, package: str, files: tuple[Path, ...]) -> dict[str, Any]:
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise ModelLoadError(f"quantising needs {package}: `pip install {package}` installs it") from None
    states = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    return {"quantization": name, "quantizer": f"{package} {version}", "source": states}
