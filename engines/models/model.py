"""A model of the library, and how two readings of the library differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engines.models.catalog import CatalogEntry, SamplingDefaults
from engines.models.purpose import Purpose, purpose_of
from engines.models.store import ModelFile

_NO_DEFAULTS = SamplingDefaults()


@dataclass(frozen=True, slots=True)
class Model:
    """A model by name, and how it is to be loaded.

    ``file`` is None while it is not on disk; ``problem`` says what is wrong with what is there, if that is
    why. ``sampling`` is what requests get that do not say otherwise.
    """

    name: str
    aliases: tuple[str, ...]
    file: ModelFile | None
    entry: CatalogEntry
    sampling: SamplingDefaults = _NO_DEFAULTS
    problem: str = ""

    @property
    def purpose(self) -> Purpose | None:
        """What it is for, None if it is not known or anything: also the catalog may say that it pools."""
        if self.entry.pooling is not None:
            return purpose_of(self.entry.pooling)
        if self.entry.rerank_template is not None:
            return "rerank"
        return self.file.purpose if self.file is not None else None

    @property
    def is_absent(self) -> bool:
        """Whether it must be pulled (``entry.hub``), or put on disk, before it can be loaded."""
        return self.file is None

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)


@dataclass(frozen=True, slots=True)
class Changes:
    """Names of models that came, went, or are other files or have other settings than before.

    ``overwritten``: their files are the same ones, with other content: nobody may use the old one any more.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    overwritten: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed or self.overwritten)


def adapter_name(model: str, adapter: str) -> str:
    """The name by which requests choose a LoRA adapter of a model."""
    return f"{model}:{adapter}"


def missing(model: Model) -> str:
    """The message for people about a model that is not on disk."""
    if model.problem:
        return f"model {model.name} of the catalog cannot be used: {model.problem}"
    if model.entry.hub is not None:
        return f"model {model.name} is not on disk: `enginehouse pull {model.name}` downloads it"
    return f"model {model.name} is in the catalog, but not on disk"


def compare(before: Mapping[str, Model], after: Mapping[str, Model]) -> Changes:
    return Changes(
        added=tuple(after[key].name for key in after if key not in before),
        removed=tuple(before[key].name for key in before if key not in after),
        changed=tuple(after[key].name for key in after if key in before and before[key] != after[key]),
    )
