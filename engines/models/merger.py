"""The merge of the catalog with the model files on disk: which file belongs to which entry."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path

from engines.errors import ModelFileNotFound, ModelLoadError, RequestError
from engines.models import projectors, store
from engines.models.catalog import Catalog, CatalogEntry
from engines.models.facts import senses_by
from engines.models.model import Model
from engines.models.sampling_layers import effective
from engines.models.store import ModelFile
from engines.registry import needs_file

logger = logging.getLogger("engines.models.library")


@dataclass(slots=True)
class Merger:
    """One merge: which file belongs to which entry, and which name to which model."""

    catalog: Catalog
    registered: Mapping[str, ModelFile]
    on_disk: list[ModelFile]
    base: Path
    taken: set[str] = field(default_factory=set)
    claimed: set[Path] = field(default_factory=set)
    problems: dict[str, str] = field(default_factory=dict)
    _real: dict[Path, Path] = field(init=False)
    _answering: dict[str, list[int]] = field(init=False)

    def __post_init__(self) -> None:
        # Looked up for every entry of the catalog.
        self._real = {file.path: file.path.resolve() for file in self.on_disk}
        self._answering = defaultdict(list)
        for position, file in enumerate(self.on_disk):
            for name in (file.name, *file.aliases):
                self._answering[name.lower()].append(position)

    def models(self) -> Iterator[Model]:
        # Files give way to what the catalog and clients call theirs, so those names are reserved first.
        self.taken |= {name.lower() for entry in self.catalog.entries for name in entry.names}
        self.taken |= self.registered.keys()
        self.taken |= {alias.lower() for file in self.registered.values() for alias in file.aliases}
        files = [self._own_file(entry) for entry in self.catalog.entries]
        self.claimed |= {file.path.resolve() for file in files if file is not None}
        for entry, file in zip(self.catalog.entries, files, strict=True):
            yield self._listed(entry, file or self._by_name(entry))
        listed = {entry.name.lower() for entry in self.catalog.entries}
        for key, file in self.registered.items():
            if key not in listed:
                yield self._model(file.name, file.aliases, file, self.catalog.unlisted(file.name))
        for file in self.on_disk:
            if self._real[file.path] not in self.claimed:
                name, *aliases = self._free(file) or [str(file.path)]
                yield self._model(name, tuple(aliases), file, self.catalog.unlisted(name))

    def _listed(self, entry: CatalogEntry, file: ModelFile | None) -> Model:
        if file is None:
            return self._model(entry.name, entry.aliases, None, entry)
        self.claimed.add(file.path.resolve())
        is_registered = file is self.registered.get(entry.name.lower())
        names = file.aliases if is_registered else self._free(file)
        return self._model(entry.name, (*entry.aliases, *names), file, entry)

    def _model(
        self, name: str, aliases: tuple[str, ...], file: ModelFile | None, entry: CatalogEntry
    ) -> Model:
        # A model that only upstreams have is theirs to have defaults for: it gets what the catalog says.
        defaults = entry.sampling
        if file is not None:
            file = self._with_projector(file, entry.projector)
            defaults = effective(name, entry.sampling, file.sampling, entry.options)
        return Model(name, aliases, file, entry, defaults, self.problems.get(name, ""))

    def _with_projector(self, file: ModelFile, given: str | None) -> ModelFile:
        """``file`` with the projector that the catalog names, if it does."""
        if given is None or file.format != "gguf":
            return file
        projector = None if given == projectors.NONE else self.base / given
        return replace(file, projector=projector, senses=senses_by(projector))

    def _free(self, file: ModelFile) -> list[str]:
        """Those of the file's names that no other model has; they are taken from now on."""
        names = [name for name in (file.name, *file.aliases) if name.lower() not in self.taken]
        self.taken |= {name.lower() for name in names}
        return names

    def _own_file(self, entry: CatalogEntry) -> ModelFile | None:
        """What was registered for ``entry`` or is where it says, if it is there and whole."""
        registered = self.registered.get(entry.name.lower())
        if registered is not None:
            return registered
        if not needs_file(entry.engine):
            return without_file(entry.name)
        if entry.path is not None:
            return self._at_path(entry.name, entry.path)
        if entry.hub is not None:
            return self._pulled(pull_folder(self.base, entry.hub.repository), entry.hub.patterns)
        return None

    def _by_name(self, entry: CatalogEntry) -> ModelFile | None:
        """A file of the entry's name. To stand in for what a hub has, it must be no other entry's."""
        if entry.path is not None:
            return None
        wanted = {name.lower() for name in entry.names}
        positions = sorted({each for name in wanted for each in self._answering.get(name, ())})
        files = [self.on_disk[position] for position in positions]
        if entry.hub is not None:
            files = [file for file in files if self._real[file.path] not in self.claimed]
        by_name = (file for file in files if file.name.lower() in wanted)
        return next(by_name, None) or next(iter(files), None)

    def _pulled(self, folder: Path, patterns: Iterable[str]) -> ModelFile | None:
        """What of a repository is wanted, if it was pulled: files that match, or all of the folder."""
        here = {file.path: file for file in self.on_disk if file.path.is_relative_to(folder)}
        for path, file in here.items():
            if any(fnmatch(path.relative_to(folder).as_posix(), pattern) for pattern in patterns):
                return file
        if folder in here:
            return here[folder]
        return None if patterns else next(iter(here.values()), None)

    def _at_path(self, name: str, path: str) -> ModelFile | None:
        try:
            wanted = store.inside(self.base, path)
            known = (file for file in self.on_disk if self._real[file.path] == wanted)
            if store.leads_out(wanted, self.base.resolve()):
                raise store.PathNotAllowed("it has links that lead out of the model folder")
            return next(known, None) or store.at(wanted)
        except ModelFileNotFound:
            return None
        except (ModelLoadError, RequestError) as error:
            logger.warning("model %s of the catalog cannot be used: %s", name, error.message)
            self.problems[name] = error.message
            return None


def pull_folder(base: Path, repository: str) -> Path:
    """Where a pull puts what comes from ``repository``: ``org/name`` under ``base``."""
    return base.joinpath(*repository.split("/"))


def without_file(name: str) -> ModelFile:
    """The stand-in for a file of a model that needs none."""
    return ModelFile(name, Path(), "none", 0, source="none")
