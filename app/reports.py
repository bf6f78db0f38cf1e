"""What clients are told of a model, from what the library, the manager, a running pull and upstreams know."""

from __future__ import annotations

from collections.abc import Sequence

from app.schemas.models import Download, Loading, ModelReport
from balancer.backends.base import Backend, BackendState
from engines.lifecycle.states import ModelState, ModelStatus
from engines.models.model import Model
from engines.models.pull.jobs import PullJob

# Who owns a model that more than one upstream has.
SEVERAL_UPSTREAMS = "upstream"


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


def upstream_report(name: str, upstreams: Sequence[Backend], *, requests: int, created: int) -> ModelReport:
    """Of a model that only ``upstreams`` have, at least one. ``created`` in Unix seconds."""
    state = _best([upstream.state for upstream in upstreams])
    return ModelReport(
        id=name,
        created=created,
        owned_by=upstreams[0].name if len(upstreams) == 1 else SEVERAL_UPSTREAMS,
        state=state,
        aliases=[],
        detail="" if state is ModelState.READY else _troubles(upstreams),
        requests=requests,
    )


def _troubles(upstreams: Sequence[Backend]) -> str:
    details = {upstream.name: upstream.status().detail for upstream in upstreams}
    return "; ".join(f"{name}: {detail}" for name, detail in details.items() if detail)


def _best(states: Sequence[BackendState]) -> ModelState:
    if BackendState.READY in states:
        return ModelState.READY
    return ModelState.LOADING if BackendState.STARTING in states else ModelState.FAILED


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
