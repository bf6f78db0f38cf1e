"""Removal of models: the files that make one up, deleted without touching anything else."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from engines.models import gguf
from engines.models.convert.plan import FOLDER
from engines.models.library import Library
from engines.models.model import Model
from engines.models.store import ModelFile

_FIRST_PART = re.compile(r"-00001-of-\d{5}$")


class NotRemovable(Exception):
    """The model's files may not be deleted; the message says why."""


def removable(library: Library, model: Model) -> list[Path]:
    """What is deleted with ``model``. Raises `NotRemovable`."""
    if model.file is None:
        raise NotRemovable(f"{model.name} is not on disk: there is nothing to delete")
    paths = belongings(model.file, library.base)
    within = [
        other.name
        for other in library.models()
        if other.file is not None and model.file.path in other.file.path.parents
    ]
    if within:
        raise NotRemovable(f"{model.file.path} holds other models too: delete {', '.join(within)} first")
    return [*paths, *_own_projector(library, model.file)]


def _own_projector(library: Library, file: ModelFile) -> list[Path]:
    """The projector of a model, unless it lies elsewhere or another model, such as another quantisation, has
    it too."""
    projector = file.projector
    if projector is None or not projector.is_relative_to(library.base):
        return []
    having = [each for each in library.models() if each.file and each.file.projector == projector]
    return [projector] if len(having) == 1 and projector.is_file() else []


def belongings(file: ModelFile, base: Path) -> list[Path]:
    """The files and folders of a model under ``base``, with what was converted from it.

    Raises `NotRemovable` for what is not in ``base``.
    """
    if file.source != "disk":
        raise NotRemovable(f"{file.name} came with a Python package: uninstall that with pip instead")
    paths = [file.path] if file.path.is_dir() else [*gguf.part_paths(file.path), *_converted(file.path)]
    for path in paths:
        _check_inside(path, base)
    return [path for path in paths if os.path.lexists(path)]


def total_size(paths: Iterable[Path]) -> int:
    """Bytes of the files, and of those in the folders; links count as nothing."""
    return sum(_size(path) for path in paths)


def remove(paths: Iterable[Path], base: Path) -> None:
    """Delete ``paths``, and the folders above them that this empties, but for ``base``. Raises `OSError`.

    A link is deleted itself; what it leads to stays.
    """
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
        _prune(path.parent, base)


def _converted(source: Path) -> list[Path]:
    """What conversions of a GGUF file left beside it."""
    folder = source.parent / FOLDER
    stem = _FIRST_PART.sub("", source.stem)
    # A type has no dot in its name, so that other models' conversions do not match.
    ours = re.compile(rf"{re.escape(stem)}\.\w+\.gguf(\.(part|json|new|lock))?")
    return sorted(path for path in folder.glob("*") if ours.fullmatch(path.name))


def _check_inside(path: Path, base: Path) -> None:
    """Links in the way may lead out of ``base``; the last one would be deleted itself."""
    if not (path.parent.resolve() / path.name).is_relative_to(base.resolve()) or path.name in ("", ".."):
        raise NotRemovable(f"{path} is not in {base}: delete it yourself if you mean to")


def _size(path: Path) -> int:
    if path.is_symlink():
        return 0
    if path.is_dir():
        return sum(_size(each) for each in path.iterdir())
    return path.stat().st_size


def _prune(folder: Path, base: Path) -> None:
    root = base.resolve()
    while folder.resolve() != root and folder.resolve().is_relative_to(root):
        try:
            folder.rmdir()
        except OSError:  # there is something in it
            return
        folder = folder.parent
