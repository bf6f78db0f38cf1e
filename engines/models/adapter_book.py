"""The LoRA adapters of a library's models: those of the catalog, those that were added since, and their names."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from engines.models.catalog import AdapterEntry
from engines.models.model import Model, adapter_name


class AdapterBook:
    """Which adapters were added to which model, and which names mean which adapter.

    Requests may write an adapter's own name, or it behind any name of its model.
    """

    def __init__(self) -> None:
        self._added: dict[str, tuple[AdapterEntry, ...]] = {}
        self._by_name: dict[str, tuple[Model, str]] = {}

    def added_to(self, model: str) -> tuple[AdapterEntry, ...]:
        """The adapters of ``model`` that no catalog names."""
        return self._added.get(model.lower(), ())

    def add(self, model: str, entry: AdapterEntry) -> None:
        self._added[model.lower()] = (*self.added_to(model), entry)

    def remove(self, model: str, name: str) -> None:
        self._added[model.lower()] = tuple(each for each in self.added_to(model) if each.name != name)

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
        """The model and the canonical name of the adapter that ``name`` means, if it means one."""
        return self._by_name.get(name.lower())
