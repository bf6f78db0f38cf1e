"""What clients are told of a model, from what the library, the manager and a running pull know."""

from __future__ import annotations

from app.schemas.models import Download, Loading, ModelReport
from engines.library import Model
from engines.manager.states import ModelState, ModelStatus
from engines.pull.jobs import PullJob


def report(model: Model, status: ModelStatus, pull: PullJob | None, created: int) -> ModelReport:
    """``created`` in Unix seconds."""
    info, file = status.info, model.file
    return ModelReport(
        id=model.name,
        created=created,
        state=_state(model, status, pull),
        aliases=list(model.aliases),
        engine=info.engine if info else None,
        format=file.format if file and file.format != "none" else None,
        source=file.source if file and file.source != "none" else None,
        size=file.size or None if file else None,
        context_length=info.context_length if info else None,
        detail=status.detail or ("waits for room" if status.waits_for_room else ""),
        loading=_loading(status),
        download=Download.model_validate(pull.progress, from_attributes=True) if pull else None,
        requests=status.inflight,
        pinned=status.pinned,
        keep_alive=status.keep_alive,
        expires_in=status.expires_in,
        retry_after=status.retry_after,
        memory=status.memory.ram + status.memory.gpu,
        devices=list(info.devices) if info else [],
        loads=status.loads,
        restarts=status.restarts,
        load_seconds=status.load_seconds,
        unload_seconds=status.unload_seconds,
    )


def _state(model: Model, status: ModelStatus, pull: PullJob | None) -> ModelState:
    if status.state is not ModelState.STOPPED:
        return status.state
    if pull is not None:
        return ModelState.DOWNLOADING
    return ModelState.ABSENT if model.is_absent else ModelState.STOPPED


def _loading(status: ModelStatus) -> Loading | None:
    if status.state is not ModelState.LOADING:
        return None
    return Loading(phase=status.phase, progress=status.progress, eta_seconds=status.eta_seconds)
