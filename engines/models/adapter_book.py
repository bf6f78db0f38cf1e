"""The LoRA adapters of a library's models: the catalog's, those that were added since, and their names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from pathlib import Path

from engines.base import Adapter
from engines.errors import RequestError
from engines.models import store
from engines.models.catalog import AdapterEntry
from engines.models.model import Model, adapter_name


class AdapterBook:
    """Which adapters were added to which model, and which names mean which adapter.

    Requests may write an adapter's own name, or it behind any name of its model.
    """

    def __init__(self, base: Path, on_change: Callable[[], None]) -> None:
        """Paths of adapters lead on from ``base``. ``on_change`` makes the models anew."""
        self._base = base
        self._on_change = on_change
        self._added: dict[str, tuple[AdapterEntry, ...]] = {}
        self._by_name: dict[str, tuple[Model, str]] = {}

    def added_to(self, model: str) -> tuple[AdapterEntry, ...]:
        """The adapters of ``model`` that no catalog names."""
        return self._added.get(model.lower(), ())

    def new(self, name: str, path: str, scale: float) -> AdapterEntry:
        """An adapter that a client gave, whose ``path`` is in the model folder.

        Raises `RequestError`, `PathNotAllowed` and `ModelFileNotFound`.
        """
        root, found = self._base.resolve(), store.inside(self._base, path)
        if store.leads_out(found, root):
            raise store.PathNotAllowed("the adapter has links that lead out of the model folder")
        try:
            return AdapterEntry(name=name, path=found.relative_to(root).as_posix(), scale=scale)
        except ValueError as error:
            raise RequestError(f"there can be no such adapter: {error}", "name") from None

    def add(self, model: str, entry: AdapterEntry) -> None:
        """Let ``model`` have the adapter for as long as this lives."""
        self._added[model.lower()] = (*self.added_to(model), entry)
        self._on_change()

    def remove(self, model: str, name: str) -> None:
        """Take back what `add` did."""
        self._added[model.lower()] = tuple(each for each in self.added_to(model) if each.name != name)
        self._on_change()

    def of(self, model: Model) -> tuple[Adapter, ...]:
        """The adapters of ``model``, as it is loaded with them."""
        return tuple(map(self.loadable, model.entry.adapters))

    def loadable(self, entry: AdapterEntry) -> Adapter:
        return Adapter(entry.name, self._base / entry.path, entry.scale)

    def complete(self, model: Model) -> Model:
        """``model`` with the adapters that were added to it, less those that the catalog names by now."""
        listed = {each.name.lower() for each in model.entry.adapters}
        added = tuple(each for each in self.added_to(model.name) if each.name.lower() not in listed)
        if not added:
            return model
        entry = model.entry.model_copy(update={"adapters": (*model.entry.adapters, *added)})
        return replace(model, entry=entry)

    def index(self, models: Iterable[Model], taken: Collection[str]) -> None:
        """Take up which adapters there are; ``taken`` are the names of models, in lower case."""
        self._by_name = {}
        for model in models:
            added = {each.name for each in self.added_to(model.name)}
            for adapter in model.entry.adapters:
                names = [adapter_name(name, adapter.name) for name in model.names]
                if adapter.name not in added:  # the catalog says that it means this
                    self._by_name[adapter.name.lower()] = model, adapter.name
                for name in (*names, adapter.name):
                    if name.lower() not in taken:
                        self._by_name.setdefault(name.lower(), (model, adapter.name))

    def find(self, name: str) -> tuple[Model, str] | None:
        """The model and the adapter's own name that ``name`` means, if it means an adapter."""
        return self._by_name.get(name.lower())

    def named(self, name: str) -> str | None:
        """The own name of the adapter that ``name`` means, if it means one."""
        found = self.find(name)
        return None if found is None else found[1]
