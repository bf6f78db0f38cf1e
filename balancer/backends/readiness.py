"""Readiness: a backend's one answer to whether a call may go there, or may wait for it, or neither.

Only a backend combines its state, its breaker and its limit into the answer (`Backend.readiness`). The
balancer asks for that and for nothing else, of every backend at every pick. So an answer is made without an
error, which `explain` makes for the few calls that are told one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from balancer.errors import BalancerError

Explain = Callable[[], BalancerError]
"""Makes the error that a call is told: a new one each time, as a raised error keeps its traceback."""


class Arrival(StrEnum):
    """The way in which a backend that takes no calls yet comes to take some."""

    STARTING = "starting"
    """Its load is under way, or the first look at an upstream."""
    RESTARTING = "restarting"
    """It crashed and is started again after a pause, whether or not a call waits."""
    ON_DEMAND = "on_demand"
    """It is at rest until a call waits for it and there is room."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A call may be sent now."""


@dataclass(frozen=True, slots=True)
class Busy:
    """The backend serves as many calls as it may: it takes another when one of them ends."""


@dataclass(frozen=True, slots=True)
class Coming:
    """The backend takes no calls yet, and waiting for it helps. ``explain`` is for a call whose wait ran out:
    its ``retry_after`` is the seconds until the backend is there, where an estimate exists."""

    arrival: Arrival
    explain: Explain


@dataclass(frozen=True, slots=True)
class Gone:
    """The backend takes no calls, and waiting for it does not help. ``explain`` says why, and when to try
    again."""

    explain: Explain


Readiness = Ready | Busy | Coming | Gone

READY = Ready()
BUSY = Busy()
