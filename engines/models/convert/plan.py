"""A conversion before it is done: its source, its result, and where the result is kept."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.errors import CannotLoad
from engines.machine.job_process import Message, Send

FOLDER = ".enginehouse"


@dataclass(frozen=True, slots=True)
class ConversionPlan:
    """A conversion to do. ``engine`` names the one whose quantizer does it; what ``level`` means is its own.

    ``stamp`` (JSON values) is different whenever the result would be. ``source_bytes`` is the size of the
    source's weights; ``degrades`` says that they are quantised already, so that quality is lost twice.
    """

    engine: str
    source: Path
    target: Path
    level: int
    name: str
    stamp: Mapping[str, Any]
    source_bytes: int
    degrades: bool

    @property
    def order(self) -> Message:
        """The plan for the process that converts, which gives it to the quantizer's ``run``."""
        return {
            "engine": self.engine,
            "source": str(self.source.absolute()),
            "target": str(self.target.absolute()),
            "level": self.level,
            "stamp": self.stamp,
            "source_bytes": self.source_bytes,
        }


@dataclass(frozen=True, slots=True)
class Quantizer:
    """An engine's way to get a model in another quantisation.

    ``plan(source, quantization, fallback_dir)`` gives the conversion that it takes, or None if the source is
    as wanted; it raises `ModelLoadError`. ``run(order, part, send)`` does what a `ConversionPlan.order` says,
    in a process of its own, and writes the result to ``part``; it sends ``{"progress": 0..1}`` and raises
    `JobFailed`.
    """

    plan: Callable[[Path, str, Path], ConversionPlan | None]
    run: Callable[[Message, Path, Send], None]


def kept_in(source: Path, folder: Path, fallback_dir: Path, name: str) -> Path:
    """The place for the result called ``name``: beside the model in ``folder``, or in ``fallback_dir`` if
    that cannot be written to, or is a Python package's."""
    if os.access(folder, os.W_OK) and not (folder / "__init__.py").exists():
        return folder / FOLDER / name
    origin = hashlib.sha256(str(source.absolute()).encode()).hexdigest()[:8]
    return fallback_dir / FOLDER / f"{origin}-{name}"


def stamp_of(quantization: str, package: str, files: tuple[Path, ...]) -> dict[str, Any]:
    """The stamp of what ``package`` makes of ``files``. Raises `ModelLoadError` if it is not installed."""
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise CannotLoad(f"quantising needs {package}: `pip install {package}` installs it") from None
    states = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    return {"quantization": quantization, "quantizer": f"{package} {version}", "source": states}
