"""The content of a catalog, its defaults applied."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from engines.models.catalog.schema import CatalogEntry, ModelSettings, UpstreamEntry


@dataclass(frozen=True, slots=True)
class Catalog:
    """The models that the file names, in its order, with the defaults applied, and other servers."""

    entries: tuple[CatalogEntry, ...] = ()
    defaults: ModelSettings = field(default_factory=ModelSettings)
    upstreams: tuple[UpstreamEntry, ...] = ()

    def unlisted(self, name: str) -> CatalogEntry:
        """The entry of a model that the file does not name: nothing but defaults."""
        # A file's name need not follow the rules for names in the catalog.
        return with_defaults(CatalogEntry.model_construct(name=name), self.defaults)


def with_defaults(entry: CatalogEntry, defaults: ModelSettings) -> CatalogEntry:
    """``entry``, where it says nothing, as ``defaults`` says."""
    given = defaults.model_fields_set - entry.model_fields_set
    update: dict[str, Any] = {name: getattr(defaults, name) for name in given}
    both = defaults.model_fields_set & entry.model_fields_set
    if "sampling" in both:
        ours = {name: getattr(entry.sampling, name) for name in entry.sampling.model_fields_set}
        update["sampling"] = defaults.sampling.model_copy(update=ours)
    if "options" in both:
        update["options"] = {**defaults.options, **entry.options}
    return entry.model_copy(update=update) if update else entry
