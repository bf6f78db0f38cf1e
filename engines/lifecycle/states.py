"""Values of the model lifecycle: state, load options, retention, status, event."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from engines.base import EngineInfo, EngineStats
from engines.machine.footprint import Footprint
from engines.models.catalog import FOREVER


class ModelState(StrEnum):
    """``absent → downloading → stopped → loading → ready ⇄ sleeping → draining → stopped``, or failed."""

    ABSENT = "absent"
    DOWNLOADING = "downloading"
    STOPPED = "stopped"
    LOADING = "loading"
    READY = "ready"
    SLEEPING = "sleeping"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """An operator's wishes for one load; None leaves it to the catalog and the settings."""

    engine: str | None = None
    quantization: str | None = None
    context_length: int | None = None


DEFAULT_OPTIONS = LoadOptions()


@dataclass(frozen=True, slots=True)
class Retention:
    """The time that a model stays loaded. ``keep_alive`` in seconds after its last use.

    ``replica_of`` another model: it takes no place of its own, and the other counts as used while it is.
    """

    pin: bool = False
    keep_alive: float = FOREVER
    replica_of: str | None = None


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A model at one moment. Times in seconds; ``progress`` of what ``phase`` names, 0..1.

    ``memory`` is an estimate until the model was loaded once. ``expires_in`` is the time until it is
    unloaded for want of use, ``retry_after`` the time until a failed load may be tried again.
    ``waits_for_room``: it is wanted, and others have to go first. ``inflight`` counts calls on its replicas
    too.
    """

    name: str
    state: ModelState
    detail: str = ""
    phase: str = ""
    progress: float = 0.0
    eta_seconds: float | None = None
    inflight: int = 0
    pinned: bool = False
    keep_alive: float = FOREVER
    expires_in: float | None = None
    retry_after: float | None = None
    waits_for_room: bool = False
    memory: Footprint = field(default_factory=Footprint)
    is_replica: bool = False
    info: EngineInfo | None = None
    stats: EngineStats | None = None
    loads: int = 0
    restarts: int = 0
    load_seconds: float | None = None
    unload_seconds: float | None = None

    @property
    def held(self) -> Footprint:
        """What it takes now: of what it may take (``memory``) an engine may not have all yet."""
        now = self.stats.memory if self.stats is not None else 0
        if not now:
            return self.memory
        return Footprint(gpu=now) if self.memory.gpu else Footprint(ram=now)


@dataclass(frozen=True, slots=True)
class ModelEvent:
    """A change of state. ``at`` in Unix seconds."""

    name: str
    previous: ModelState
    state: ModelState
    at: float
    detail: str = ""
