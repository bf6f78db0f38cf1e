"""Models as Ollama's API lists and shows them, of what is known of each here."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from app.dialects.ollama.models_schema import (
    OllamaDetails,
    OllamaModel,
    OllamaProgress,
    OllamaRunningModel,
    OllamaShown,
)
from app.dialects.ollama.timing import rfc3339
from app.schemas.models import ModelCard, ModelReport
from engines.errors import ModelLoadError
from engines.lifecycle.states import ModelStatus
from engines.models import gguf, hf
from engines.models.facts import ModelFacts, describe
from engines.models.model import Model

# What our capabilities are called there; those without a name are not told.
_CAPABILITIES = {
    "completion": "completion",
    "tools": "tools",
    "reasoning": "thinking",
    "vision": "vision",
    "audio": "audio",
    "embeddings": "embedding",
    "fim": "insert",
}
# Seconds that Ollama adds to the time for "never".
_NEVER = 2**63 / 1e9
# Long texts in a header, which are told elsewhere.
_TEMPLATE = "tokenizer.chat_template"


def capabilities(ours: Iterable[str]) -> list[str]:
    has = frozenset(ours)
    return [name for own, name in _CAPABILITIES.items() if own in has]


def listed(card: ModelCard, model: Model | None) -> OllamaModel:
    """A model of the list; ``model`` is the library's, or the adapter's, and None for an upstream's. Reads
    files that were not read before."""
    return OllamaModel(
        name=card.id,
        model=card.id,
        modified_at=_modified(model, card.created),
        size=card.size or 0,
        digest=_digest(card.id, model),
        details=_details(model, card.parent),
        capabilities=None if card.capabilities is None else capabilities(card.capabilities),
    )


def running(report: ModelReport, status: ModelStatus, model: Model) -> OllamaRunningModel:
    """A model that is loaded."""
    left = _NEVER if report.expires_in is None else report.expires_in
    return OllamaRunningModel(
        name=report.id,
        model=report.id,
        size=report.memory,
        digest=_digest(report.id, model),
        details=_details(model, None),
        expires_at=rfc3339(time.time() + left),
        size_vram=status.held.gpu,
        context_length=report.context_length or 0,
    )


def shown(report: ModelReport, model: Model | None) -> OllamaShown:
    """Everything about a model. Reads its file."""
    info = _info(model)
    if report.context_length:
        info.setdefault(f"{info['general.architecture']}.context_length", report.context_length)
    return OllamaShown(
        modelfile=f"FROM {report.id}",
        parameters="\n".join(f"{name:<24} {value}" for name, value in report.sampling.items()),
        template=_template(model),
        license=str(info.get("general.license", "")),
        details=_details(model, report.parent),
        model_info={name: value for name, value in info.items() if name != _TEMPLATE},
        capabilities=capabilities(report.capabilities or ()),
        modified_at=_modified(model, report.created),
    )


def progress(name: str, status: str, completed: int, total: int | None) -> OllamaProgress:
    """A line about a pull of ``name``. Only what is downloaded has a size."""
    if status != "downloading":
        words = {"resolving": "pulling manifest", "verifying": "verifying sha256 digest"}
        return OllamaProgress(status=words.get(status, "writing manifest"))
    digest = hashlib.sha256(name.encode()).hexdigest()
    told = {} if total is None else {"total": total}
    return OllamaProgress(
        status=f"pulling {digest[:12]}", digest=f"sha256:{digest}", completed=completed, **told
    )


def _facts(model: Model | None) -> ModelFacts | None:
    path = _path(model)
    if path is None:
        return None
    try:
        return describe(path)
    except (ModelLoadError, OSError):  # it went away meanwhile
        return None


def _details(model: Model | None, parent: str | None) -> OllamaDetails:
    facts = _facts(model)
    if facts is None:
        return OllamaDetails(parent_model=parent or "")
    return OllamaDetails(
        parent_model=parent or "",
        format="gguf" if facts.format == "gguf" else "safetensors",
        family=facts.architecture,
        families=[facts.architecture],
        parameter_size=facts.size_label,
        quantization_level=facts.quantization or "",
    )


def _info(model: Model | None) -> dict[str, Any]:
    """The header of the model's file; of a folder, or of what is elsewhere, as much of one as is known."""
    path, facts = _path(model), _facts(model)
    if path is None or facts is None:
        return {"general.architecture": "unknown"}
    if facts.format == "gguf":
        return _told(gguf.read_header(path).metadata)
    architecture = facts.architecture or "unknown"
    told = {"context_length": facts.context_length, "embedding_length": facts.embedding_length}
    return {
        "general.architecture": architecture,
        **{f"{architecture}.{name}": value for name, value in told.items() if value},
    }


def _told(metadata: Mapping[str, Any]) -> dict[str, Any]:
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in metadata.items()}
    return {"general.architecture": "unknown", **{n: v for n, v in plain.items() if v is not None}}


def _template(model: Model | None) -> str:
    path = _path(model)
    if path is None:
        return ""
    if path.is_dir():
        return hf.chat_template(path)
    return str(gguf.read_header(path).metadata.get(_TEMPLATE) or "")


def _path(model: Model | None) -> Path | None:
    if model is None or model.file is None or model.file.format == "none":
        return None
    return model.file.path


def _stamp(model: Model | None) -> tuple[float, int] | None:
    path = _path(model)
    try:
        found = path.stat() if path is not None else None
    except OSError:
        return None
    return None if found is None else (found.st_mtime, found.st_size)


def _modified(model: Model | None, otherwise: int) -> str:
    stamp = _stamp(model)
    return rfc3339(otherwise if stamp is None else stamp[0])


def _digest(name: str, model: Model | None) -> str:
    return hashlib.sha256(repr((name, _stamp(model))).encode()).hexdigest()
