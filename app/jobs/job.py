"""Jobs, and the kinds of work that they may be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
UNFINISHED: tuple[JobState, ...] = ("queued", "running")

SaveProgress = Callable[[Mapping[str, Any]], Awaitable[None]]


class WorkFailed(Exception):
    """The work cannot be done, and trying again would not help; the message says why."""


@dataclass(slots=True)
class Job:
    """Work of a kind, for ``owner``. ``arguments`` are what the kind needs to begin, ``progress`` what it has
    saved of how far it is; both are JSON. ``starts`` is how often servers died with it since."""

    id: str
    kind: str
    owner: str
    state: JobState
    arguments: Mapping[str, Any]
    progress: Mapping[str, Any] | None = None
    cancel_requested: bool = False
    runner: str | None = None
    starts: int = 0


@dataclass(frozen=True, slots=True)
class JobRun:
    """A job that runs here. ``cancelled`` is set once somebody wants it to end."""

    job: Job
    save_progress: SaveProgress
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)


class JobKind(Protocol):
    """A kind of work, by its ``name``; at most ``at_once`` of it run at a time."""

    name: str
    at_once: int

    async def run(self, run: JobRun) -> JobState:
        """Do the work, from the beginning or from where it was left; returns the state that it ends in.

        A server may die at any point: what was done must show on the disk. `asyncio.CancelledError` means
        that the server stops: the work goes on when the next one starts. Raises `WorkFailed`; any other
        exception makes the runner try again later.
        """
        ...

    async def give_up(self, job: Job, reason: str) -> None:
        """Tell whoever waits for it that ``job`` is not tried any more."""
        ...
