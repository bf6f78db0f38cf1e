"""Targets: from the name in a request to a model and an adapter, once for each request."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from balancer.call import Target
from engines.models.catalog import SamplingDefaults
from engines.models.library import Library
from engines.models.model import Model

_NO_DEFAULTS = SamplingDefaults()


@dataclass(frozen=True, slots=True)
class Resolved:
    """A target, the sampling of requests for it that do not say otherwise, and whether it takes messages."""

    target: Target
    sampling: SamplingDefaults = _NO_DEFAULTS
    can_chat: bool = True


class Serves(Protocol):
    """The part of an upstream that says what it has, by our names."""

    @property
    def models(self) -> tuple[str, ...]: ...

    def serves(self, model: str) -> bool: ...


class Targets:
    """Resolves names against the library, then against the upstreams. Letter case does not matter."""

    def __init__(
        self,
        library: Library,
        upstreams: Callable[[], Iterable[Serves]],
        can_chat: Callable[[Model], bool] = lambda model: True,
    ) -> None:
        """``can_chat``: whether there is a chat template for a model of the library."""
        self._library = library
        self._upstreams = upstreams
        self._can_chat = can_chat

    def resolve(self, name: str) -> Resolved:
        """The target that a request for ``name`` goes to. Raises `ModelFileNotFound`."""
        known = self._library.get(name)
        if known is None:
            if (foreign := self.foreign(name)) is not None:
                return foreign
            self._library.find(name)  # raises: it says which names there are
        assert known is not None
        target = Target(known.name, _adapter(known, name), name)
        if known.is_absent and not self._is_upstream(target.name):
            self._library.on_disk(known.name)  # raises: it says how to get the model
        can_chat = self._can_chat(known) or self._is_upstream(target.name)
        return Resolved(target, known.sampling, can_chat)

    def foreign(self, name: str) -> Resolved | None:
        """The target for ``name`` if only upstreams have it and the library does not know it; else None."""
        theirs = self._foreign(name) if self._library.get(name) is None else None
        return None if theirs is None else Resolved(Target(theirs, None, name))

    def _foreign(self, name: str) -> str | None:
        """The name by which upstreams have ``name``; in another letter case, if it is no other model's."""
        if self._is_upstream(name):
            return name
        wanted = name.lower()
        found = {model for each in self._upstreams() for model in each.models if model.lower() == wanted}
        return found.pop() if len(found) == 1 else None

    def _is_upstream(self, name: str) -> bool:
        return any(upstream.serves(name) for upstream in self._upstreams())


def _adapter(model: Model, name: str) -> str | None:
    """The adapter of ``model`` that ``name`` is, by its canonical name."""
    wanted = name.lower()
    return next((each.name for each in model.entry.adapters if each.name.lower() == wanted), None)
