"""Who is loaded next and who has to go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engines.lifecycle.planner import AdmissionPlan, Occupant, Want, plan
from engines.machine.footprint import Footprint

ONE = Footprint(ram=1)
BUDGET = Footprint(ram=3, gpu=2)


def occupant(name: str, used: float = 0.0, memory: Footprint = ONE, **fields: bool) -> Occupant:
    return Occupant(name, memory, last_used=used, **fields)


def run(occupants: list[Occupant], *wants: str | Want, max_models: int = 2) -> AdmissionPlan:
    wanted = [Want(w, ONE) if isinstance(w, str) else w for w in wants]
    return plan(occupants, wanted, max_models=max_models, budget=BUDGET)


def test_what_fits_is_loaded() -> None:
    assert run([], "a", "b") == AdmissionPlan(load=("a", "b"))


def test_the_least_recently_used_idle_model_goes() -> None:
    assert run([occupant("a", 2), occupant("b", 1)], "c") == AdmissionPlan(evict=("b",))


def test_an_idle_model_goes_before_a_busy_one_however_recent() -> None:
    assert run([occupant("a", 1, busy=True), occupant("b", 9)], "c") == AdmissionPlan(evict=("b",))


def test_with_all_busy_the_least_recently_used_makes_way() -> None:
    assert run([occupant("a", 1, busy=True), occupant("b", 2, busy=True)], "c").yielding == {"a"}


def test_who_makes_way_keeps_making_way() -> None:
    """Else two models would take turns at it and neither would ever be idle."""
    occupants = [occupant("a", 1, busy=True), occupant("b", 2, busy=True, yielding=True)]
    assert run(occupants, "c").yielding == {"b"}


def test_pinned_and_loading_models_stay() -> None:
    loading = occupant("a", evictable=False, busy=True)
    pinned = occupant("b", evictable=False, pinned=True)
    assert run([loading, pinned], "c") == AdmissionPlan()


def test_nothing_is_loaded_before_the_room_is_free() -> None:
    assert run([occupant("a"), occupant("b", leaving=True)], "c") == AdmissionPlan()
    assert run([occupant("a")], "c") == AdmissionPlan(load=("c",))


def test_memory_counts_as_much_as_places() -> None:
    big = Want("big", Footprint(ram=2))
    assert run([occupant("a", 1), occupant("b", 2)], big, max_models=9) == AdmissionPlan(evict=("a",))
    assert run([occupant("a", 1, Footprint(gpu=2))], Want("g", Footprint(gpu=1))).evict == ("a",)


def test_who_need_not_go_stays() -> None:
    """The oldest is looked at first, but the larger one alone is enough."""
    occupants = [occupant("small", 1), occupant("large", 2, Footprint(ram=2))]
    assert run(occupants, Want("big", Footprint(ram=2)), max_models=9).evict == ("large",)


def test_what_never_fits_is_refused_with_a_way_out() -> None:
    refused = run([], Want("huge", Footprint(ram=4))).refused
    assert "MAX_MEMORY" in refused["huge"]
    pinned = [occupant(name, evictable=False, pinned=True) for name in "ab"]
    assert "pinned models (a, b)" in run(pinned, "c").refused["c"]


def test_an_earlier_want_keeps_its_room() -> None:
    """The second want must not take, again and again, what the first is waiting for."""
    busy = [occupant("a", 1, busy=True), occupant("b", 2, busy=True)]
    assert run(busy, "c", "d").yielding == {"a", "b"}
    assert run([occupant("a", 1, busy=True), occupant("b", leaving=True)], "c", "d").yielding == {"a"}


MODELS = st.lists(
    st.builds(
        Occupant,
        name=st.sampled_from([f"m{i}" for i in range(6)]),
        memory=st.builds(Footprint, st.integers(0, 4), st.integers(0, 4)),
        evictable=st.booleans(),
        busy=st.booleans(),
        leaving=st.booleans(),
        yielding=st.booleans(),
        last_used=st.floats(0, 9),
    ),
    max_size=5,
    unique_by=lambda o: o.name,
)
WANTS = st.lists(
    st.builds(Want, st.sampled_from([f"w{i}" for i in range(6)]), st.builds(Footprint, st.integers(0, 4))),
    max_size=4,
    unique_by=lambda w: w.name,
)


@given(MODELS, WANTS, st.integers(1, 5), st.integers(1, 8), st.integers(0, 8))
def test_no_plan_breaks_a_promise(
    occupants: list[Occupant], wants: list[Want], max_models: int, ram: int, gpu: int
) -> None:
    budget = Footprint(ram, gpu)
    result = plan(occupants, wants, max_models=max_models, budget=budget)
    by_name = {o.name: o for o in occupants}
    needs = {w.name: w.memory for w in wants}
    assert all(not by_name[name].busy and by_name[name].evictable for name in result.evict)
    assert all(by_name[name].busy and by_name[name].evictable for name in result.yielding)
    assert not set(result.load) & set(result.refused)
    total = sum((o.memory for o in occupants), Footprint())
    for name in result.load:
        total += needs[name]
    if result.load:
        assert len(occupants) + len(result.load) <= max_models
        if any(needs[name].ram for name in result.load):
            assert total.ram <= ram
    if not wants:
        assert result == AdmissionPlan()
    # A want that nothing permanent stands against is loaded, makes someone go, or waits for one that goes.
    settled = [o for o in occupants if o.evictable or o.leaving]
    if wants and len(settled) == len(occupants) and wants[0].name not in result.refused:
        going = bool(result.evict or result.yielding) or any(o.leaving for o in occupants)
        assert wants[0].name in result.load or going
