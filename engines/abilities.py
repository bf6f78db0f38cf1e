"""Abilities of models: what a model can do, by its engine's declared capabilities and its own files.

The one place that says so. What an engine says of a model that is loaded is certain; before that it is what
is to be expected.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from engines.base import EngineInfo
from engines.descriptor import EngineDescriptor
from engines.models.model import Model
from engines.sizing import auto_context

# Those that clients are told, in this order.
TOLD = (
    "chat",
    "completion",
    "tools",
    "structured",
    "reasoning",
    "fim",
    "vision",
    "audio",
    "embeddings",
    "rerank",
    "adapters",
)
# Of the capabilities that an engine declares, those that a model has whatever its files say.
_OF_TEXT = frozenset({"completion", "structured"})
_OF_CHATS = frozenset({"chat", "tools"})


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a model can do. ``context_length`` is in tokens; None, and an empty ``pooling``: not known, or
    none. Its vectors have ``embedding_length`` numbers."""

    capabilities: tuple[str, ...] = ()
    context_length: int | None = None
    pooling: str = ""
    embedding_length: int = 0

    @property
    def input_modalities(self) -> list[str]:
        """What goes in: text, and what a model that can chat is shown or plays beside it."""
        kinds = {"image": "vision", "audio": "audio"}
        return ["text", *(kind for kind, able in kinds.items() if able in self.capabilities)]

    @property
    def output_modalities(self) -> list[str]:
        """What comes out, of a model that can do anything."""
        kinds = {"text": ("chat", "completion"), "embeddings": ("embeddings",), "scores": ("rerank",)}
        return [kind for kind, able in kinds.items() if not set(able).isdisjoint(self.capabilities)]


def of_loaded(info: EngineInfo) -> Abilities:
    """Those of a loaded model."""
    return Abilities(_told(info.capabilities), info.context_length, info.pooling, info.embedding_length)


def expected(model: Model, engine: EngineDescriptor | None, context_length: int | None) -> Abilities:
    """Those that ``model`` will have on ``engine``, None if it cannot be loaded; ``context_length`` is the
    server's setting."""
    file, entry = model.file, model.entry
    if file is None or engine is None:
        return Abilities(context_length=entry.context_length)
    length = entry.context_length or context_length or auto_context(file.context_length)
    pooling = entry.pooling or file.pooling or ""
    has = _expected(model, engine)
    pools = model.purpose in ("embeddings", "rerank")
    return Abilities(_told(has), length, pooling, file.embedding_length if pools else 0)


def _expected(model: Model, engine: EngineDescriptor) -> frozenset[str]:
    file, declared = model.file, engine.capabilities
    if file is None or model.purpose is None:
        return declared
    if model.purpose != "text":
        return declared & {model.purpose}
    has = set(_OF_TEXT)
    if file.has_chat_template or engine.brings_templates or "chat_template" in model.entry.options:
        has |= _OF_CHATS | file.senses | ({"reasoning"} if file.reasons else set())
    if file.has_fim:
        has.add("fim")
    if engine.adapts or model.entry.adapters or model.entry.options.get("enable_lora") is True:
        has.add("adapters")
    return declared & has


def _told(capabilities: Iterable[str]) -> tuple[str, ...]:
    has = frozenset(capabilities)
    return tuple(each for each in TOLD if each in has)
