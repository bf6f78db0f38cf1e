"""All models there are: those that the catalog names, merged with what is on disk."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

from engines.errors import BadModelFile, ModelFileNotFound, RequestError
from engines.models import store
from engines.models.adapter_book import AdapterBook
from engines.models.catalog import Catalog, CatalogError, UpstreamEntry, check_name, load_catalog
from engines.models.catalog.schema import MAX_NAME
from engines.models.gguf import part_paths
from engines.models.merger import Merger, without_file
from engines.models.model import Changes, Model, compare, missing
from engines.models.store import ModelFile
from engines.models.survey import Skipped, Survey, look_into

logger = logging.getLogger("engines.models.library")

# Names in the message about one that there is not, and names that are compared with it.
MOST_SHOWN = 50
MOST_COMPARED = 200
MOST_MATCHES = 3
# Names that clients may give a file, after the first.
MOST_ALIASES = 16


@dataclass(frozen=True, slots=True)
class Reading:
    """What the disk and the catalog said at one moment, or what is wrong with the catalog."""

    number: int
    stamp: Mapping[Path, store.Stamp | None]
    survey: Survey
    catalog: Catalog | CatalogError


class Library:
    """Owns the list of models. Reading is cheap; only `read`, `reload` and `add_path` look at the disk."""

    def __init__(self, base: Path, catalog_path: Path) -> None:
        """A catalog with mistakes is used as far as it is right; `catalog_error` says what is wrong."""
        self.base = base
        self.stamp: Mapping[Path, store.Stamp | None] = {}
        self._catalog_path = catalog_path
        self._catalog = Catalog()
        self._catalog_stamp: store.Stamp | None = None
        self._readings = self._adopted = 0
        self._survey = Survey()
        self._has_begun = False
        self._registered: dict[str, ModelFile] = {}
        self._models: dict[str, Model] = {}
        self._by_any_name: dict[str, Model] = {}
        self.adapters = AdapterBook(base, self._merge)
        self.catalog_error: CatalogError | None = None
        self.reload()

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """What looks like a model on disk and is none, with the reasons."""
        return tuple(self._survey.skipped)

    @property
    def upstreams(self) -> tuple[UpstreamEntry, ...]:
        """Other servers that the catalog names."""
        return self._catalog.upstreams

    def models(self) -> list[Model]:
        """Those of the catalog in its order, then those on disk by path, then the bundled ones."""
        return list(self._models.values())

    def find(self, wanted: str) -> Model:
        """The model of this name or alias; case does not matter. Raises `ModelFileNotFound`."""
        try:
            return self._by_any_name[wanted.lower()]
        except KeyError:
            raise ModelFileNotFound(self._unknown(wanted)) from None

    def get(self, wanted: str) -> Model | None:
        """The model of this name, alias, or adapter, if there is one."""
        adapted = self.adapters.find(wanted)
        return self._by_any_name.get(wanted.lower()) if adapted is None else adapted[0]

    def on_disk(self, wanted: str) -> Model:
        """As `find`, and the model is there to be loaded. Raises `ModelFileNotFound`."""
        model = self.find(wanted)
        if model.is_absent:
            raise ModelFileNotFound(missing(model))
        return model

    def named(self, wanted: str) -> Model:
        """The model that an operator names, by a name or by a path, which may lead anywhere.

        Raises `ModelFileNotFound`, and `ModelLoadError` if something else than a model is at the path.
        """
        path = Path(wanted).expanduser()
        if wanted.lower() in self._by_any_name or not path.exists():
            return self.find(wanted)
        file = store.at(path)
        same = (model for model in self.models() if model.file is not None and _is_same(model.file, file))
        known = next(same, None)
        if known is None:  # an operator's path counts more than another model's name
            return self.put(file.name, path)
        return known

    def add_path(self, name: str, path: str) -> Model:
        """Make the model at ``path``, which a client gave, known as ``name`` for as long as this lives.

        A model of the catalog that is not on disk gets this file; one that got a name this way before gets
        another. Raises `PathNotAllowed`, `ModelFileNotFound`, `BadModelFile`, and `RequestError` if ``name``
        is another model's.
        """
        try:
            check_name(name)
        except ValueError as error:
            raise RequestError(str(error), param="model_name") from None
        found = store.inside(self.base, path)
        try:
            if store.leads_out(found, self.base.resolve()):
                raise store.PathNotAllowed(
                    "the model at model_path has links that lead out of the model folder"
                )
            file = store.at(found)
        except (OSError, RuntimeError) as error:  # it may not be read, or links lead in a circle
            raise BadModelFile(f"{path} cannot be read: {error}") from error
        return self._register(name, file)

    def put(self, name: str, path: Path) -> Model:
        """Make the model at ``path``, which an operator gave, known as ``name``, whatever was before.

        Raises `ModelFileNotFound` or `ModelLoadError`.
        """
        self._register_as(name, store.at(path))
        return self.find(name)

    def add_without_file(self, name: str) -> Model:
        """A model without a file, for an engine that needs none."""
        return self._register(name, without_file(name))

    def reload(self) -> Changes:
        """Read the catalog and look at the disk again: `read` and `adopt` at once."""
        return self.adopt(self.read())

    def read(self) -> Reading:
        """Look at the disk, and read the catalog if it changed. Takes long for a long one, in any thread."""
        self._readings += 1
        number = self._readings
        # Stamps are taken before what they stand for is read: a change meanwhile shows at the next look.
        stamps = {path: store.stamp(path) for path in (self._catalog_path, self.base)}
        survey = look_into(self.base)
        files: dict[Path, store.Stamp | None] = {}
        for file in (*survey.models, *tuple(self._registered.values())):
            files |= store.stamps(file)
        for skipped in survey.skipped:  # as while it is copied here, which changes nothing but itself
            files |= skipped.stamps
        catalog: Catalog | CatalogError = self._catalog
        if self._catalog_stamp != stamps[self._catalog_path]:
            try:
                catalog = load_catalog(self._catalog_path)
            except CatalogError as error:
                catalog = error
        return Reading(number, stamps | files | survey.folders, survey, catalog)

    def adopt(self, reading: Reading) -> Changes:
        """Take up what was read, unless something newer was.

        Raises `CatalogError`; the models then stay as they were, and `changed` is false until the next edit.
        """
        if reading.number < self._adopted:
            return Changes()
        earlier = self.stamp
        self._adopted, self.stamp = reading.number, reading.stamp
        catalog, stamp = reading.catalog, reading.stamp[self._catalog_path]
        if self._catalog_stamp != stamp:
            self.catalog_error = catalog if isinstance(catalog, CatalogError) else None
        if isinstance(catalog, CatalogError):
            if self._has_begun:
                raise catalog
            logger.error("the catalog has mistakes, and is used without them:\n%s", catalog)
            catalog = catalog.usable or Catalog()
        self._has_begun = True
        self._catalog, self._catalog_stamp = catalog, stamp
        before_skipped = {skipped.path for skipped in self._survey.skipped}
        for skipped in reading.survey.skipped:
            if skipped.path not in before_skipped:
                logger.warning("skipped %s: %s", skipped.path, skipped.reason)
        self._survey = reading.survey
        before = self._models
        self._merge()
        return replace(compare(before, self._models), overwritten=self._overwritten(before, earlier))

    def _overwritten(
        self, before: Mapping[str, Model], earlier: Mapping[Path, store.Stamp | None]
    ) -> tuple[str, ...]:
        """Models with a file that is the one of ``earlier``, not another in its place, and was written to.

        They may be models no more.
        """

        def is_overwritten(path: Path) -> bool:
            old, new = earlier.get(path), self.stamp.get(path) or store.stamp(path)
            return old is not None and new is not None and old != new and old[0] == new[0]

        models = {**before, **self._models}.values()
        files = [(model.name, model.file) for model in models]
        return tuple(
            name
            for name, file in files
            if file is not None and file.format == "gguf" and any(map(is_overwritten, part_paths(file.path)))
        )

    def changed(self) -> bool:
        """Whether `reload` might find something new. Cheap: one stat for each folder and model."""
        return any(store.stamp(path) != before for path, before in self.stamp.items())

    def _register(self, name: str, file: ModelFile) -> Model:
        known = self._by_any_name.get(name.lower())
        if known is not None and known.file is not None and not _is_same(known.file, file):
            raise RequestError(f"the name {name!r} is another model's: choose another", param="model_name")
        if known is None or known.file is None:
            key = (known.name if known else name).lower()
            before = next((key for key, each in self._registered.items() if each.path == file.path), None)
            if known is None and before is not None and file.format != "none":
                self._registered[before] = _with_alias(self._registered[before], name)
                self._merge()
            else:
                self._register_as(name, file, key)
        return self.find(name)

    def _register_as(self, name: str, file: ModelFile, key: str | None = None) -> None:
        self._registered[(key or name).lower()] = replace(file, name=name, aliases=())
        self.stamp = {**self.stamp, **(store.stamps(file) if file.path.exists() else {})}
        self._merge()

    def _merge(self) -> None:
        """Make the models anew from the catalog, what was registered, and what is on disk."""
        registered = {key: file for key, file in self._registered.items() if file.path.exists()}
        merger = Merger(self._catalog, registered, self._survey.models, self.base)
        self._models = {model.name.lower(): self.adapters.complete(model) for model in merger.models()}
        self._by_any_name = dict(self._models)
        for model in self._models.values():
            for alias in model.aliases:
                self._by_any_name.setdefault(alias.lower(), model)
        self.adapters.index(self._models.values(), self._by_any_name.keys())

    def _unknown(self, wanted: str) -> str:
        wanted = wanted[:MAX_NAME]  # clients send anything, and comparing long texts takes long
        if (reason := self._survey.reason_against(wanted, self.base)) is not None:
            return f"{wanted!r} is no model that can be served: {reason}"
        meant = dict.fromkeys(self._by_any_name[name].name for name in self._close(wanted.lower()))
        hint = f"; did you mean {' or '.join(meant)}?" if meant else ""
        here = [model.name for model in self._models.values() if not model.is_absent]
        more = len(here) - MOST_SHOWN
        there = (", ".join(here[:MOST_SHOWN]) or "none") + (f" and {more:,} more" if more > 0 else "")
        return f"there is no model {wanted!r}{hint} (models here: {there})"

    def _close(self, wanted: str) -> list[str]:
        """Names that ``wanted`` may be meant for: first those that it is a part of."""
        names = self._comparable(wanted)
        longer = [name for name in names if wanted and wanted in name]
        return [*longer, *get_close_matches(wanted, names, n=MOST_MATCHES)][:MOST_MATCHES]

    def _comparable(self, wanted: str) -> list[str]:
        """The names that ``wanted`` is compared with, which takes long: of many, those that begin alike."""
        names = self._by_any_name
        if len(names) > MOST_COMPARED:
            alike = (name for name in names if name[:2] == wanted[:2])
            return list(islice(alike, MOST_COMPARED))
        return list(names)


def _with_alias(file: ModelFile, name: str) -> ModelFile:
    """A file is one model, whatever clients call it: each model is loaded, counted and shown by itself."""
    if len(file.aliases) >= MOST_ALIASES:
        raise RequestError(f"{file.name} has {MOST_ALIASES} other names: use one of them", param="model_name")
    return replace(file, aliases=(*file.aliases, name))


def _is_same(one: ModelFile, other: ModelFile) -> bool:
    return one.path.resolve() == other.path.resolve()
