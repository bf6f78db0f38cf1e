"""Suspects: calls under which several instances died, any of which may be the cause."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from balancer.backends.base import BackendState
from balancer.lease import Lease

# A call that kills what computes it must come to an end, however long each death takes: so many of our own
# instances may die, or fail, under it one after the other without a token in between, and so many in all.
# With fewer, streams ended that did nothing but wait where `make chaos` killed an instance every 5 s.
MOST_DEATHS = 6
MOST_DEATHS_IN_ALL = 10
# From so many on it is a suspect.
SUSPECT_AFTER = 2
SUSPECT_AFTER_IN_ALL = 3
# Suspects are tried one by one, each for twice as long as it took before, within these bounds in seconds.
SHORTEST_TRIAL = 0.5
LONGEST_TRIAL = 5.0

_LET_GO = (BackendState.DRAINING, BackendState.STOPPED)


class Suspects:
    """Tries the suspects of each model one after the other. The death of an instance on which one is tried
    counts against that one only: so those that did nothing outlive the one that kills."""

    def __init__(self) -> None:
        self.turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        # By instance, its generation on which a suspect is tried, or died.
        self.tried: dict[str, int] = {}


class Suspicion:
    """The deaths of instances under one call, and its turn to be tried alone."""

    def __init__(self, suspects: Suspects, model: str) -> None:
        self._suspects = suspects
        self._model = model
        self._took = 0.0  # seconds until the longest-lived instance died
        self._turn: asyncio.Lock | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._place = ""
        self._tokens = 0  # that it had at the last death
        self._in_a_row = 0  # deaths since it got further
        self.deaths = 0

    @property
    def is_proven(self) -> bool:
        """Whether the call is to be given up."""
        return self._in_a_row >= MOST_DEATHS or self.deaths >= MOST_DEATHS_IN_ALL

    async def wait_turn(self) -> None:
        """Wait until no other suspect is tried, if this is one. `end` must follow."""
        if self._in_a_row >= SUSPECT_AFTER or self.deaths >= SUSPECT_AFTER_IN_ALL:
            turn = self._suspects.turns[self._model]
            await turn.acquire()
            self._turn = turn

    def begin(self, lease: Lease) -> None:
        """The call goes to an instance. If it stays there for long enough, the next suspect is tried."""
        if self._turn is not None:
            self._place = lease.backend.name
            self._suspects.tried[self._place] = lease.generation
            lasts = min(max(SHORTEST_TRIAL, 2 * self._took), LONGEST_TRIAL)
            self._timer = asyncio.get_running_loop().call_later(lasts, self.end)

    def note(self, lease: Lease, tokens: int) -> None:
        """An instance failed while it served the call, which has ``tokens`` by now.

        One that was unloaded did not die of anything.
        """
        backend = lease.backend
        if not backend.is_managed or backend.state in _LET_GO:
            return
        if self._turn is not None:
            self._place = ""  # the others there hear of it later
        elif self._suspects.tried.get(backend.name) == lease.generation:
            return
        self.deaths += 1
        self._in_a_row = 1 if tokens > self._tokens else self._in_a_row + 1
        self._tokens = max(self._tokens, tokens)
        self._took = max(self._took, lease.age)

    def end(self) -> None:
        """End the call's turn, if it has one. Idempotent."""
        turn, self._turn = self._turn, None
        if self._timer is not None:
            self._timer.cancel()
        self._suspects.tried.pop(self._place, None)
        self._place = ""
        if turn is not None:
            turn.release()
