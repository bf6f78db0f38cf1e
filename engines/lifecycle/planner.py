"""The planner: which models are loaded next and which have to go, without engines, clock or I/O.

Requests are served in the order in which they arrived, as far as that does not mean loading a model for
every one of them: a loaded model first serves all that wait for it, and only then makes way. A busy
model is never evicted; once it is chosen it takes no younger requests, so it will be idle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from engines.machine.footprint import Footprint


@dataclass(frozen=True, slots=True)
class Occupant:
    """A model that holds memory.

    ``evictable``: loaded and not pinned. ``leaving``: its memory is being freed. ``asleep`` or a ``replica``
    of another model: it holds memory, but no place. ``last_used`` orders by time.
    """

    name: str
    memory: Footprint
    evictable: bool = True
    busy: bool = False
    leaving: bool = False
    yielding: bool = False
    pinned: bool = False
    asleep: bool = False
    replica: bool = False
    last_used: float = 0.0

    @property
    def places(self) -> int:
        return 0 if self.asleep or self.replica else 1


@dataclass(frozen=True, slots=True)
class Want:
    """A model that is to be loaded, and what it will take; a ``modest`` one takes only room that is free."""

    name: str
    memory: Footprint
    modest: bool = False
    replica: bool = False

    @property
    def places(self) -> int:
        return 0 if self.replica else 1


@dataclass(frozen=True, slots=True)
class AdmissionPlan:
    """Decisions for now, by the names of models.

    ``load`` fits at once. ``evict`` are idle. ``yielding`` are busy and to take no younger requests.
    ``refused`` can never be loaded, with the reason.
    """

    load: tuple[str, ...] = ()
    evict: tuple[str, ...] = ()
    yielding: frozenset[str] = frozenset()
    refused: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Room:
    """Models and bytes that are free."""

    models: int
    memory: Footprint

    def holds(self, want: Want) -> bool:
        return self.models >= want.places and want.memory.fits(self.memory)

    def take(self, memory: Footprint, places: int) -> None:
        self.models -= places
        self.memory -= memory

    def give(self, memory: Footprint, places: int) -> None:
        self.models += places
        self.memory += memory


def plan(
    occupants: Sequence[Occupant], wants: Sequence[Want], *, max_models: int, budget: Footprint
) -> AdmissionPlan:
    """The plan for ``wants``, most urgent first; each is given its room before the next is looked at."""
    now = _Room(max_models, budget)
    for occupant in occupants:
        now.take(occupant.memory, occupant.places)
    later = _Room(now.models, now.memory)
    for occupant in occupants:
        if occupant.leaving:
            later.give(occupant.memory, occupant.places)
    candidates = sorted((o for o in occupants if not o.pinned and not o.leaving), key=_reluctance)
    load: list[str] = []
    evict: list[str] = []
    yielding: set[str] = set()
    refused: dict[str, str] = {}
    for want in wants:
        if reason := never(occupants, want, max_models=max_models, budget=budget):
            refused[want.name] = reason
            continue
        victims = _victims([] if want.modest else candidates, want, later)
        if victims is None:
            continue  # its turn comes after those before it
        settled = all(victim.evictable for victim in victims)
        for victim in victims:
            candidates.remove(victim)
            later.give(victim.memory, victim.places)
            if settled:
                yielding.add(victim.name) if victim.busy else evict.append(victim.name)
        later.take(want.memory, want.places)
        # Room that depends on a load's end is only kept from younger wants, else they would always be first.
        if settled and now.holds(want):
            now.take(want.memory, want.places)
            load.append(want.name)
    return AdmissionPlan(tuple(load), tuple(evict), frozenset(yielding), refused)


def _reluctance(occupant: Occupant) -> tuple[bool, bool, bool, bool, bool, float]:
    """What is loading last; sleepers before the idle, the idle before the busy; of the busy, those that make
    way already; replicas before the models whose going takes them along; then the least recently used."""
    state = not occupant.evictable, occupant.busy, not occupant.asleep, not occupant.yielding
    return *state, not occupant.replica, occupant.last_used


def _victims(candidates: Iterable[Occupant], want: Want, later: _Room) -> list[Occupant] | None:
    """The fewest that must go, in order of preference; None if all of them are not enough."""
    room = _Room(later.models, later.memory)
    victims: list[Occupant] = []
    for candidate in candidates:
        if room.holds(want):
            break
        room.give(candidate.memory, candidate.places)
        victims.append(candidate)
    if not room.holds(want):
        return None
    return _spared(victims, want, room)


def _spared(victims: list[Occupant], want: Want, room: _Room) -> list[Occupant]:
    """``victims`` without those whose going turned out not to be needed, the most reluctant first."""
    needed = list(victims)
    for victim in reversed(victims):
        room.take(victim.memory, victim.places)
        if room.holds(want):
            needed.remove(victim)
        else:
            room.give(victim.memory, victim.places)
    return needed


def never(occupants: Iterable[Occupant], want: Want, *, max_models: int, budget: Footprint) -> str | None:
    """Why ``want`` could not be loaded even if everything that may go went."""
    pinned = [o for o in occupants if o.pinned]
    room = _Room(max_models, budget)
    for occupant in pinned:
        room.take(occupant.memory, occupant.places)
    if room.holds(want):
        return None
    names = ", ".join(o.name for o in pinned)
    if room.models < want.places:
        return (
            f"all {max_models} places are taken by pinned models ({names}): unpin one, "
            "or raise MAX_CONCURRENT_MODELS"
        )
    besides = f" besides the pinned models ({names})" if names else ""
    return (
        f"it needs about {want.memory}, and the memory budget leaves {room.memory}{besides}: "
        "lower context_length or kv_cache_tokens, choose a smaller quantization, or raise MAX_MEMORY or "
        "MAX_GPU_MEMORY"
    )
