"""Targets: from the name in a request to a model and an adapter, once for each request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from app.inference.task import BaseTask
from balancer.call import Target
from engines.abilities import Abilities
from engines.base.media import SENSES, MediaKind
from engines.errors import RequestError, UnsupportedFeature
from engines.models.catalog import SamplingDefaults
from engines.models.library import Library
from engines.models.model import Model
from engines.models.purpose import Purpose

_NO_DEFAULTS = SamplingDefaults()

# What a model of each purpose does, and does not, and where.
_DOES: dict[Purpose, tuple[str, str, str]] = {
    "text": ("generates text", "generates no text", "/v1/chat/completions"),
    "embeddings": ("makes embeddings", "makes no embeddings", "/v1/embeddings"),
    "rerank": ("ranks documents", "ranks no documents", "/v1/rerank"),
}
# Models that are named to somebody who asked the wrong one.
_MOST_NAMED = 3


def _nobody(purpose: Purpose) -> Sequence[str]:
    return ()


@dataclass(frozen=True, slots=True)
class Resolved:
    """A target, the sampling of requests for it that do not say otherwise, and whether it takes messages.

    ``purpose`` is what the model is for, None if that is not known or anything; ``others`` are the models
    that are for another.
    """

    target: Target
    sampling: SamplingDefaults = _NO_DEFAULTS
    can_chat: bool = True
    purpose: Purpose | None = None
    others: Callable[[Purpose], Sequence[str]] = field(default=_nobody, compare=False)

    def check_purpose(self, wanted: Purpose) -> None:
        """Raise `UnsupportedFeature` if the model is for something else: before it is loaded, for which
        another one may have to go."""
        if self.purpose in (None, wanted):
            return
        does, _, where = _DOES[self.purpose]
        _, lacks, _ = _DOES[wanted]
        others = self.others(wanted)[:_MOST_NAMED]
        advice = f"use a model that does, such as {', '.join(others)}" if others else "load a model that does"
        raise UnsupportedFeature(
            f"model {self.target.name} {does} ({where}) and {lacks}: {advice}", param="model"
        )


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
        abilities: Callable[[Model], Abilities] = lambda model: Abilities(),
    ) -> None:
        """``can_chat``: whether there is a chat template for a model of the library; ``abilities`` are those
        that it will have once it is loaded, none where that is not known."""
        self._library = library
        self._upstreams = upstreams
        self._can_chat = can_chat
        self._abilities = abilities

    def resolve(self, name: str, purpose: Purpose | None = None) -> Resolved:
        """The target that a request for ``name`` goes to; without a name, the only model for ``purpose``.

        Raises `ModelFileNotFound`, and `RequestError` if the name is needed.
        """
        if not name and purpose is not None:
            resolved = self.resolve(self._only(purpose))
            # The request does not have the name that its backend gets.
            return replace(resolved, target=replace(resolved.target, asked_name=""))
        known = self._library.get(name)
        if known is None:
            if (foreign := self.foreign(name)) is not None:
                return foreign
            self._library.find(name)  # raises: it says which names there are
        assert known is not None
        target = Target(known.name, self._library.adapters.named(name), name)
        is_elsewhere = any(map(self._is_upstream, target.names))
        if known.is_absent and not is_elsewhere:
            self._library.on_disk(known.name)  # raises: it says how to get the model
        can_chat = self._can_chat(known) or is_elsewhere
        purpose = None if is_elsewhere else known.purpose
        return Resolved(target, known.sampling, can_chat, purpose, self.models_for)

    def check_senses(self, task: BaseTask) -> None:
        """Raise `UnsupportedFeature` if ``task`` has images or sounds and its model is known not to take
        them: before it is loaded, and before anything is fetched."""
        for kind, sense in SENSES.items():
            param = task.needs.get(sense)
            known = self._library.get(task.target.model) if param is not None else None
            if known is None or self._is_upstream(task.target.name):
                continue
            able = self._abilities(known).capabilities
            if able and sense not in able:
                raise UnsupportedFeature(self._lacks(task.target, sense, kind), param=param)

    def _lacks(self, target: Target, sense: str, kind: MediaKind) -> str:
        models = [each for each in self._library.models() if not each.is_absent]
        others = [each.name for each in models if sense in self._abilities(each).capabilities][:_MOST_NAMED]
        what = "images" if kind == "image" else "audio"
        advice = f"use a model that does, such as {', '.join(others)}" if others else "no model here does"
        return f"model {target.name} takes no {what}: {advice} (`{sense}` among its capabilities)"

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

    def _only(self, purpose: Purpose) -> str:
        """The name of the one model for ``purpose``, else of the one that is for anything."""
        models = [each for each in self._library.models() if not each.is_absent]
        able = self.models_for(purpose) or [each.name for each in models if each.purpose is None]
        if len(able) == 1:
            return able[0]
        _, lacks, _ = _DOES[purpose]
        advice = f"give one of {', '.join(able[:_MOST_NAMED])}" if able else f"each model here {lacks}"
        raise RequestError(f"`model` is missing: {advice}", param="model")

    def models_for(self, purpose: Purpose) -> Sequence[str]:
        """The names of the models of this server that are for ``purpose``."""
        models = self._library.models()
        return [each.name for each in models if each.purpose == purpose and not each.is_absent]

    def _is_upstream(self, name: str) -> bool:
        return any(upstream.serves(name) for upstream in self._upstreams())
