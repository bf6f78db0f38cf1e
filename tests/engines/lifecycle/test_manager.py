"""Requests come and go, and models with them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from engines.errors import ModelFileNotFound
from engines.lifecycle.errors import InsufficientMemory
from engines.lifecycle.states import ModelState, Retention
from engines.machine.footprint import Footprint

if TYPE_CHECKING:
    from conftest import House

    MakeHouse = Callable[..., House]


# -- loading on demand -----------------------------------------------------------------------------


async def test_a_request_has_its_model_loaded(house: House) -> None:
    request = house.ask("a")
    assert house.state("a") is ModelState.LOADING
    assert not house.manager.can_serve("a")
    await house.loaded("a")
    assert house.running == [request]
    status = house.manager.status("a")
    assert (status.state, status.inflight, status.loads) == (ModelState.READY, 1, 1)
    assert house.manager.resident("a") is house.engine("a")


async def test_however_many_ask_there_is_one_load(house: House) -> None:
    requests = [house.ask("a") for _ in range(5)]
    await house.settle()
    requests += [house.ask("a") for _ in range(5)]
    await house.loaded("a")
    assert house.served == requests
    assert house.loads == ["a"]


async def test_who_leaves_leaves_no_trace(make_house: MakeHouse) -> None:
    """B was wanted, but had no room yet; nobody wants it any more."""
    house = make_house(max_models=1)
    first = house.ask("a")
    await house.loaded("a")
    house.leave(house.ask("b"))
    house.end(first)
    await house.later(100)
    assert house.loads == ["a"]
    assert house.state("a") is ModelState.READY
    assert not house.manager.status("b").waits_for_room


async def test_a_load_that_is_under_way_outlives_who_wanted_it(house: House) -> None:
    request = house.ask("a")
    await house.settle()
    house.leave(request)
    await house.loaded("a")
    assert house.state("a") is ModelState.READY
    assert house.running == []


async def test_progress_is_told(house: House) -> None:
    house.ask("a")
    await house.settle()
    house.now += 3
    status = house.manager.status("a")
    assert (status.phase, status.progress, status.eta_seconds) == ("reading", 0.5, 3.0)
    await house.loaded("a")
    status = house.manager.status("a")
    assert (status.phase, status.progress, status.eta_seconds, status.load_seconds) == ("", 1.0, None, 3.0)


async def test_an_unknown_model_is_said_to_be_unknown(house: House) -> None:
    with pytest.raises(ModelFileNotFound):
        house.manager.status("no-such")
    assert house.manager.statuses() == []


async def test_a_demand_for_an_unknown_model_does_no_lasting_harm(house: House) -> None:
    with pytest.raises(ModelFileNotFound):
        house.manager.demand(["a", "no-such"])
    house.ask("b")
    await house.loaded("b")
    assert house.state("b") is ModelState.READY


# -- room ------------------------------------------------------------------------------------------


async def test_the_least_recently_used_idle_model_makes_room(make_house: MakeHouse) -> None:
    house = make_house(max_models=2)
    for name in ("a", "b", "a"):
        house.now += 1
        await house.serve(name)
    house.ask("c")
    await house.loaded("c")
    assert (house.state("a"), house.state("b")) == (ModelState.READY, ModelState.STOPPED)
    assert house.manager.counts["evictions"] == 1


async def test_nothing_is_loaded_before_the_room_is_really_free(house: House) -> None:
    house.loader.slow_closes = True
    await house.serve("a")
    request = house.ask("b")
    await house.settle()
    assert house.state("a") is ModelState.DRAINING
    assert house.manager.status("b").waits_for_room
    assert house.loading == set()
    gate = house.engine("a").gate
    assert gate is not None
    gate.set()
    await house.loaded("b")
    assert house.running == [request]


async def test_what_is_measured_counts_more_than_the_estimate(make_house: MakeHouse) -> None:
    house = make_house(max_models=9, ram=10)
    house.loader.real_sizes["a"] = 9
    house.loader.sizes["b"] = 2
    await house.serve("a")
    assert house.manager.used == Footprint(ram=9)
    house.ask("b")
    await house.settle()
    assert (house.state("a"), house.loading) == (ModelState.STOPPED, {"b"})
    assert house.manager.used == Footprint(ram=2)


async def test_models_that_fit_are_loaded_side_by_side(make_house: MakeHouse) -> None:
    house = make_house(max_models=3, ram=2)
    for name in "abc":
        house.ask(name)
    await house.settle()
    assert house.loading == {"a", "b"}


async def test_a_model_that_can_never_fit_is_refused_at_once(make_house: MakeHouse) -> None:
    house = make_house(ram=10)
    house.loader.sizes["huge"] = 11
    patient = house.ask("a")
    request = house.ask("huge")
    refusal = house.refused[request]
    assert isinstance(refusal, InsufficientMemory)
    assert "MAX_MEMORY" in refusal.message
    assert (house.waiting, house.loads) == ([patient], [])
    house.loader.sizes["huge"] = 10
    assert house.manager.refusal("huge") is None


async def test_a_place_that_is_pinned_is_refused_until_it_is_not(house: House) -> None:
    house.loader.retentions["a"] = Retention(pin=True)
    await house.serve("a")
    request = house.ask("b")
    assert "pinned models (a)" in house.refused[request].message
    house.manager.want("a", pin=False)
    request = house.ask("b")
    await house.loaded("b")
    assert house.running == [request]


# -- busy models -----------------------------------------------------------------------------------


async def test_a_busy_model_stays_until_it_is_idle(house: House) -> None:
    request = house.ask("a")
    await house.loaded("a")
    house.ask("b")
    await house.later(1000)
    assert house.state("a") is ModelState.READY
    assert house.loads == ["a"]
    house.end(request)
    await house.settle()
    assert house.loading == {"b"}


async def test_a_busy_model_takes_no_requests_younger_than_who_needs_its_room(house: House) -> None:
    first = house.ask("a")
    await house.loaded("a")
    second = house.ask("a")
    older = house.ask("b")
    younger = house.ask("a")
    assert house.running == [first, second]
    house.end(first, second)
    await house.loaded("b")
    assert house.running == [older]
    assert house.waiting == [younger]
    house.end(older)
    await house.loaded("a")
    assert house.running == [younger]


async def test_it_takes_requests_again_when_that_one_leaves(house: House) -> None:
    first = house.ask("a")
    await house.loaded("a")
    older = house.ask("b")
    younger = house.ask("a")
    house.leave(older)
    assert house.running == [first, younger]


async def test_it_takes_requests_again_when_room_comes_from_elsewhere(make_house: MakeHouse) -> None:
    """Both are busy, one is chosen to make way, the other is idle first."""
    house = make_house(max_models=2)
    chosen, other = house.ask("a"), house.ask("b")
    await house.loaded("a", "b")
    house.ask("c")
    assert not house.manager.can_serve("a")
    younger = house.ask("a")
    house.end(other)
    await house.settle()
    assert house.loading == {"c"}
    assert house.state("b") is ModelState.STOPPED
    assert house.running == [chosen, younger]


async def test_an_idle_model_goes_at_once(make_house: MakeHouse) -> None:
    house = make_house(max_models=2)
    busy = house.ask("a")
    await house.loaded("a")
    await house.serve("b")
    house.ask("c")
    await house.settle()
    assert house.loading == {"c"}
    assert house.running == [busy]
    assert house.manager.can_serve("a")


async def test_who_waits_longest_is_served_first_even_if_it_needs_more(make_house: MakeHouse) -> None:
    """Small requests that keep coming must not keep out one that needs all the memory."""
    house = make_house(max_models=9, ram=2)
    house.loader.sizes["big"] = 2
    house.ask("a")
    await house.settle()
    house.ask("big")
    house.ask("b")
    assert house.loading == {"a"}, "b would keep big waiting even after a"
    await house.loaded("a")
    house.end(*house.running)
    await house.settle()
    assert house.loading == {"big"}


async def test_what_is_merely_to_be_there_takes_free_room_only(make_house: MakeHouse) -> None:
    house = make_house(max_models=1)
    house.manager.want("a")
    await house.loaded("a")
    house.manager.want("b", modest=True)
    await house.settle()
    assert house.loads == ["a"]
    await house.manager.unload("a")
    await house.loaded("b")
    request = house.ask("a")  # a request counts more
    await house.loaded("a")
    assert house.running == [request]


# -- files that are not read yet -------------------------------------------------------------------


async def test_a_load_begins_once_its_file_was_read(house: House) -> None:
    house.loader.unread["a"] = asyncio.Event()
    first, second = house.ask("a"), house.ask("a")
    other = house.ask("b")
    await house.settle()
    assert house.loader.studies == ["a"], "once for all"
    assert house.loading == set(), "nobody overtakes them"
    house.loader.unread["a"].set()
    await house.settle()
    await house.loaded("a")
    assert house.running == [first, second]
    house.end(first, second)
    await house.loaded("b")
    assert house.running == [other]
    assert house.loader.studies == ["a"]


async def test_what_is_wrong_with_it_is_told(house: House) -> None:
    house.loader.unread["a"] = asyncio.Event()
    house.loader.unreadable["a"] = "not a GGUF file"
    request = house.ask("a")
    await house.settle()
    assert house.refused == {}
    house.loader.unread["a"].set()
    await house.settle()
    assert house.refused[request].message == "not a GGUF file"


async def test_stopping_does_not_wait_for_a_file(house: House) -> None:
    house.loader.unread["a"] = asyncio.Event()
    house.ask("a")
    await house.settle()
    await house.manager.stop()
    assert house.loader.started == []
