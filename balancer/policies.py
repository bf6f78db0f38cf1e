"""Policies: which of the ready backends gets a call, by every strategy, beside what they share.

A policy is one synchronous `Policy.select`. It does no I/O, counts no calls and serves one model; backends
may come and go between its calls. What it remembers it keeps by a backend's name, in bounded memory.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol, TypeVar

from balancer.prefixes import PrefixIndex

# What a unit of relative load weighs against a wholly cached prompt: its backend keeps a conversation until
# it is five times as loaded as the least loaded one.
LOAD_WEIGHT = 0.25
SPARE_NAMES = 1000  # of absent backends, remembered beside those that are there


class Strategy(StrEnum):
    ROUND_ROBIN = "round_robin"
    LEAST_CONNECTIONS = "least_connections"
    WEIGHTED = "weighted"
    RANDOM = "random"
    RESPONSE_TIME = "response_time"
    PREFIX_AWARE = "prefix_aware"


class Selectable(Protocol):
    """The part of a backend that a policy reads: plain attributes, as it reads them of all."""

    @property
    def name(self) -> str: ...

    @property
    def weight(self) -> float:
        """Share of the calls relative to the others, above 0."""
        ...

    @property
    def inflight(self) -> int: ...

    @property
    def ttft(self) -> float | None:
        """Peak-EWMA of the time to the first token in seconds; None without a sample."""
        ...


C = TypeVar("C", bound=Selectable)


class Policy(Protocol):
    def select(self, candidates: Sequence[C], prefix: Sequence[int] = ()) -> C | None:
        """One of ``candidates``, those that can take the call now, in a stable order; None if there are none.

        ``prefix`` is the conversation's `prefix_blocks`.
        """
        ...


def make_policy(strategy: Strategy, rng: random.Random | None = None) -> Policy:
    """A fresh policy; ``rng`` makes its random choices repeatable."""
    rng = rng or random.Random()
    match strategy:
        case Strategy.ROUND_ROBIN:
            return RoundRobin()
        case Strategy.LEAST_CONNECTIONS:
            return LeastConnections(rng)
        case Strategy.WEIGHTED:
            return Weighted()
        case Strategy.RANDOM:
            return Random(rng)
        case Strategy.RESPONSE_TIME:
            return ResponseTime(rng)
        case Strategy.PREFIX_AWARE:
            return PrefixAware(rng)


class RoundRobin:
    """The candidate whose last turn is longest ago; a new one is next.

    With the same candidates at each call this is the plain cycle. With changing ones it stays fair, as an
    index into the list does not: nobody gets a second turn while another candidate still waits for its own.
    """

    def __init__(self) -> None:
        self._turns: dict[str, int] = {}
        self._turn = 0

    def select(self, candidates: Sequence[C], prefix: Sequence[int] = ()) -> C | None:
        if not candidates:
            return None
        self._turn += 1
        turn_of = self._turns.get
        turns = [turn_of(candidate.name, 0) for candidate in candidates]
        chosen = candidates[turns.index(min(turns))]
        self._turns[chosen.name] = self._turn
        _forget_absent(self._turns, candidates)
        return chosen


class Weighted:
    """Smooth weighted round robin, as nginx does it (ngx_http_upstream_round_robin.c).

    At each pick every candidate earns its weight; the richest is picked and pays what all of them earned.
    Who is left out of a call neither earns nor pays.
    """

    def __init__(self) -> None:
        self._credits: dict[str, float] = {}

    def select(self, candidates: Sequence[C], prefix: Sequence[int] = ()) -> C | None:
        chosen: C | None = None
        most, earned = -math.inf, 0.0
        credits = self._credits
        credit_of = credits.get
        for candidate in candidates:
            name, weight = candidate.name, candidate.weight
            credits[name] = credit = credit_of(name, 0.0) + weight
            earned += weight
            if credit > most:
                chosen, most = candidate, credit
        if chosen is not None:
            credits[chosen.name] -= earned
            _forget_absent(credits, candidates)
        return chosen


class Random:
    """Any candidate, with a probability in proportion to its weight."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def select(self, candidates: Sequence[C], prefix: Sequence[int] = ()) -> C | None:
        if not candidates:
            return None
        return self._rng.choices(candidates, [candidate.weight for candidate in candidates])[0]


class LeastConnections:
    """The lowest (inflight + 1) / weight, as in IPVS's weighted least connections; ties are drawn."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def select(self, candidates: Sequence[C], prefix: Sequence[int] = ()) -> C | None:
        return _cheapest(candidates, _loads(candidates), self._rng)


class ResponseTime:
    """The lowest ttft · (inflight + 1), as in Finagle's peak-EWMA load balancer; ties are drawn.

    A backend without a sample costs nothing while it is idle, so that it gets one. Until that is there, it
    counts as the slowest of the others: one call tries it, not all.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def select(self, candidates: Sequence[C], prefix: Sequence[int] = ()) -> C | None:
        ttfts = [candidate.ttft for candidate in candidates]
        known = [ttft for ttft in ttfts if ttft]
        if len(known) < len(ttfts):
            slowest = max(known, default=1.0)
            known = [
                ttft or (slowest if candidate.inflight else 0.0)
                for candidate, ttft in zip(candidates, ttfts, strict=True)
            ]
        costs = [ttft * (candidate.inflight + 1) for candidate, ttft in zip(candidates, known, strict=True)]
        return _cheapest(candidates, costs, self._rng)


class PrefixAware:
    """The most of the prompt cached for the least load: the highest matched / prompt - β · relative load.

    Relative load is how much more loaded, (inflight + 1) / weight, a candidate is than the least loaded one,
    as a multiple of that one's load. So a miss goes to the least loaded. Of equals the longest match wins,
    and ties are drawn. It weighs in one sum what SGLang's cache-aware router switches between.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._index = PrefixIndex()

    def select(self, candidates: Sequence[C], prefix: Sequence[int] = ()) -> C | None:
        if not candidates:
            return None
        chosen = self._rng.choice(self._best(candidates, prefix))
        self._index.add(prefix, chosen.name)
        return chosen

    def _best(self, candidates: Sequence[C], prefix: Sequence[int]) -> Sequence[C]:
        """Those of the highest score.

        It is compared in units of load: a candidate costs its load, less what its match saves. From the
        longest match down, the search ends where not even the least loaded would cost less than the best so
        far. So the beginning that most backends know is seldom looked up in all of them.
        """
        loads = _loads(candidates)
        lowest = min(loads)
        best, cost = list[C](), math.inf
        for matched in self._index.depths(prefix):
            saved = lowest * matched / (LOAD_WEIGHT * len(prefix))
            if cost <= lowest - saved:
                return best
            names = self._index.holders(prefix[matched - 1])
            for candidate in candidates:
                if candidate.name in names:
                    its_cost = (candidate.inflight + 1) / candidate.weight - saved
                    if its_cost < cost:
                        best, cost = [candidate], its_cost
                    elif its_cost == cost:
                        best.append(candidate)
        if cost <= lowest:
            return best
        return [one for one, load in zip(candidates, loads, strict=True) if load == lowest]


class PeakEwma:
    """A moving average of seconds that believes bad news at once and good news slowly (Finagle's PeakEwma).

    A sample above the average replaces it; one below pulls it down, by more the longer the last one is ago.
    Without samples it fades towards 0, or a backend that was slow once, and gets no calls for it, would
    never be tried again.
    """

    # Seconds. An average that has faded below says nothing any more.
    NOTHING = 1e-6

    def __init__(self, decay: float = 10.0) -> None:
        """``decay``: seconds after which a sample weighs 1/e."""
        self._decay = decay
        self._average: float | None = None
        self._at = 0.0

    @property
    def last(self) -> float | None:
        """The average as of the last sample, for people: nothing becomes faster by waiting."""
        return self._average

    def observe(self, seconds: float, now: float) -> None:
        kept = math.exp(-max(0.0, now - self._at) / self._decay)
        if self._average is None or seconds > self._average * kept:
            self._average = seconds
        else:
            self._average = self._average * kept + seconds * (1 - kept)
        self._at = now

    def value(self, now: float) -> float | None:
        """The average as it has faded until ``now``; None without a sample that still counts."""
        if self._average is None:
            return None
        faded = self._average * math.exp((self._at - now) / self._decay)
        return faded if faded > self.NOTHING else None


def _loads(candidates: Sequence[Selectable]) -> list[float]:
    return [(candidate.inflight + 1) / candidate.weight for candidate in candidates]


def _cheapest(candidates: Sequence[C], costs: list[float], rng: random.Random) -> C | None:
    """The candidate of the lowest cost. Ties are drawn, or the first would get every call of a quiet hour."""
    if not candidates:
        return None
    lowest = min(costs)
    ties = costs.count(lowest)
    index = costs.index(lowest)
    for _ in range(rng.randrange(ties) if ties > 1 else 0):
        index = costs.index(lowest, index + 1)
    return candidates[index]


def _forget_absent(state: dict[str, int] | dict[str, float], candidates: Sequence[Selectable]) -> None:
    """Drop the names that are no candidates, once they are too many: backends that came and went."""
    if len(state) > len(candidates) + SPARE_NAMES:
        present = {candidate.name for candidate in candidates}
        for name in state.keys() - present:
            del state[name]
