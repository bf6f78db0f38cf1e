"""The default model: what DEFAULT_MODEL names, or the first that can run here and chat."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from engines.errors import EngineError, ModelFileNotFound
from engines.lifecycle.loader import ModelLoader
from engines.lifecycle.states import DEFAULT_OPTIONS
from engines.machine.footprint import Footprint
from engines.models import store
from engines.models.library import Library
from engines.models.model import Model

logger = logging.getLogger("engines.models.default")

AUTO = "auto"


def choose(library: Library, loader: ModelLoader, budget: Footprint) -> Model:
    """The first model of the catalog, then of the disk, that fits into ``budget``, can be run here, and can
    chat; else the bundled one. The log says why the others are not it.

    Raises `ModelFileNotFound` if there is none at all.
    """
    models = [model for model in library.models() if not model.is_absent]
    # A bundled one may be in the catalog too: it comes last all the same.
    candidates = sorted(models, key=_is_bundled)
    if not candidates:
        raise ModelFileNotFound(_none(library))
    passed: list[str] = []
    for model in candidates:
        reason = next(_obstacles(model, loader, budget), None)
        if reason is None:
            for each in passed:
                logger.warning("DEFAULT_MODEL=auto passes over %s", each)
            return model
        passed.append(f"{model.name}: {reason}")
    # One that does not chat still serves, and one that cannot be loaded says so to whoever asks for it.
    last = next((model for model in candidates if _is_bundled(model)), candidates[0])
    logger.warning("DEFAULT_MODEL=auto takes %s, but %s", last.name, "; ".join(passed))
    return last


def _is_bundled(model: Model) -> bool:
    return model.file is not None and model.file.source == "bundled"


def _obstacles(model: Model, loader: ModelLoader, budget: Footprint) -> Iterator[str]:
    """Why ``model`` is not the one to begin with."""
    try:
        memory = loader.estimate(model.name, DEFAULT_OPTIONS)
    except EngineError as error:
        yield error.message
        return
    if not memory.fits(budget):
        yield f"it needs about {memory}, and models may take {budget} (MAX_MEMORY, MAX_GPU_MEMORY)"
    if model.purpose in ("embeddings", "rerank"):
        yield "it generates no text"
    elif not loader.can_chat(model):
        yield "it has no chat template, so it cannot chat"


def _none(library: Library) -> str:
    left_out = [f"{skipped.path.name}: {skipped.reason}" for skipped in library.skipped]
    return store.no_model(library.base) + (f". Left out: {'; '.join(left_out)}" if left_out else "")
