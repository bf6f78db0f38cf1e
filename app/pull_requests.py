"""Requests for pulls, resolved: from a model's name, as people give it, to a repository of a hub."""

from __future__ import annotations

import re
from dataclasses import dataclass

from engines.errors import ModelFileNotFound
from engines.models.library import Library
from engines.models.merger import pull_folder
from engines.models.model import Model
from engines.models.pull.puller import PullRequest, SourceName

_REPOSITORY = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}")


@dataclass(frozen=True, slots=True)
class NamedPull:
    """A resolved pull: the model's name, the library's model if there is one, and the request for the hub."""

    name: str
    model: Model | None
    request: PullRequest


def named_pull(
    library: Library,
    name: str,
    source: SourceName | None = None,
    revision: str | None = None,
    include: tuple[str, ...] = (),
) -> NamedPull:
    """The pull of a catalog model, or of ``org/name`` from a hub. The catalog supplies what is not given.

    Raises `ModelFileNotFound` if ``name`` is neither.
    """
    model = _known(library, name)
    hub = model.entry.hub if model else None
    repository = hub.repository if hub else name
    if not _REPOSITORY.fullmatch(repository):
        raise ModelFileNotFound(
            f"{name!r} is neither a catalog model with a hub nor the id of a repository (org/name)"
        )
    request = PullRequest(
        repo=repository,
        source=source or (hub.hub if hub else "huggingface"),
        target=pull_folder(library.base, repository),
        revision=revision or (hub.revision if hub else None),
        include=include or (hub.patterns if hub else ()),
    )
    return NamedPull(model.name if model else repository.split("/")[1], model, request)


def _known(library: Library, name: str) -> Model | None:
    try:
        return library.find(name)
    except ModelFileNotFound:
        return None
