"""Requests for pulls, resolved: from a model's name, as people give it, to a repository of a hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.pull_names import PullName, read_name
from engines import selection
from engines.errors import ModelFileNotFound
from engines.machine.footprint import Footprint
from engines.machine.platform import Facts
from engines.models.formats import ModelFormat
from engines.models.library import Library
from engines.models.merger import pull_folder
from engines.models.model import Model
from engines.models.pull.puller import PullRequest, SourceName

# In which repositories have their models; what is for MLX alone shows in a configuration only.
_FORMATS: tuple[ModelFormat, ...] = ("gguf", "hf")


@dataclass(frozen=True, slots=True)
class NamedPull:
    """A resolved pull: the model's name, the library's model if there is one, and the request for the hub."""

    name: str
    model: Model | None
    request: PullRequest


@dataclass(frozen=True, slots=True)
class Usefulness:
    """What could be served here: why not models of a format, and the bytes that the largest may have."""

    unusable: Mapping[str, str]
    largest: int


def usefulness(facts: Facts, engine: str, budget: Footprint) -> Usefulness:
    """``engine`` is INFERENCE_ENGINE, ``budget`` the memory that models may take."""
    choices = {format: selection.choose_engine(facts, engine, format) for format in _FORMATS}
    unusable = {str(format): "; ".join(each.reasons) for format, each in choices.items() if not each.engine}
    return Usefulness(unusable, budget.ram + budget.gpu)


def named_pull(
    library: Library,
    name: str,
    source: SourceName | None = None,
    revision: str | None = None,
    include: tuple[str, ...] = (),
    *,
    only_for: Usefulness | None = None,
) -> NamedPull:
    """The pull of a catalog model, or of what a hub has, by any name that `read_name` reads.

    The catalog supplies what is not given. ``only_for``: what could not be served is refused. Raises
    `ModelFileNotFound` if ``name`` is neither, and `RequestError` for an address of something else.
    """
    wanted, model = PullName(name), library.get(name)
    if model is None:
        wanted = read_name(name)
        model = library.get(wanted.name)
    hub = model.entry.hub if model else None
    if hub is None and not wanted.is_repository:
        raise ModelFileNotFound(
            f"{name[:200]!r} is neither a catalog model with a hub nor the id of a repository (org/name, or "
            "org/name:Q4_K_M for one quantisation)"
        )
    repository = hub.repository if hub else wanted.name
    chosen = include or wanted.include
    request = PullRequest(
        repo=repository,
        source=source or (hub.hub if hub else wanted.source or "huggingface"),
        target=pull_folder(library.base, repository),
        revision=revision or wanted.revision or (hub.revision if hub else None),
        include=chosen or (hub.patterns if hub and wanted.quantization is None else ()),
        quantization=None if chosen else wanted.quantization,
        unusable=dict(only_for.unusable) if only_for else {},
        largest=only_for.largest if only_for else None,
    )
    return NamedPull(model.name if model else repository.split("/")[1], model, request)
