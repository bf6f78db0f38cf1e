"""Replicas of a model: they take no place, and the model counts as used while they are."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from engines.errors import ModelLoadError
from engines.lifecycle.errors import InsufficientMemory, ModelConflict
from engines.lifecycle.planner import Occupant, Want, plan
from engines.lifecycle.record import LONGEST_RESTART_PAUSE, STABLE_AFTER, Record
from engines.lifecycle.states import LoadOptions, ModelState, Retention
from engines.machine.footprint import Footprint

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import House

READY, STOPPED = ModelState.READY, ModelState.STOPPED


@pytest.fixture
async def pair(make_house: Callable[..., House]) -> House:
    """One place, memory for three; model a and its replica are loaded."""
    house = make_house(max_models=1, ram=3)
    house.loader.retentions["a2"] = Retention(replica_of="a")
    await house.serve("a")
    house.manager.want("a2", modest=True)
    await house.loaded("a2")
    return house


async def test_a_replica_takes_no_place(pair: House) -> None:
    assert (pair.state("a"), pair.state("a2")) == (READY, READY)
    assert pair.manager.used.ram == 2


async def test_a_model_is_in_use_while_its_replica_is(pair: House) -> None:
    request = pair.ask("a2")
    assert pair.manager.status("a").inflight == 1
    other = pair.ask("b")
    await pair.settle()
    assert (pair.state("a"), other in pair.waiting) == (READY, True)
    late = [pair.ask("a2"), pair.ask("a")]
    await pair.settle()
    assert all(each in pair.waiting for each in late)  # it makes way: on none of its replicas
    for each in late:
        pair.leave(each)
    pair.end(request)
    await pair.loaded("b")
    assert other in pair.running
    assert pair.manager.status("a").inflight == 0


async def test_use_of_a_replica_puts_the_models_expiry_off(pair: House) -> None:
    request = pair.ask("a2", keep_alive=10.0)
    await pair.later(100)
    assert pair.state("a") is READY
    pair.end(request)
    await pair.later(9)
    assert pair.state("a") is READY
    await pair.later(1)
    assert pair.state("a") is STOPPED


async def test_a_replica_does_not_expire_by_itself(pair: House) -> None:
    pair.end(pair.ask("a2"))
    await pair.later(10_000)
    assert pair.state("a2") is READY


async def test_a_drained_replica_is_freed_when_its_calls_end_though_the_model_is_busy(pair: House) -> None:
    first, second = pair.ask("a"), pair.ask("a2")
    unloading = pair.start(pair.manager.unload("a2", again=True))
    await pair.settle()
    assert pair.state("a2") is ModelState.DRAINING
    pair.end(second)
    await pair.settle()
    assert unloading.done()
    assert (pair.state("a"), pair.state("a2")) == (READY, STOPPED)
    pair.end(first)


async def test_a_modest_load_pushes_nobody_out(pair: House) -> None:
    with pytest.raises(InsufficientMemory):
        await pair.manager.load("a2", LoadOptions(context_length=3), patience=0.0, modest=True)
    await pair.settle()
    assert pair.state("a") is READY


@pytest.mark.parametrize(("max_models", "goes"), [(1, "a"), (2, "a2")])
def test_an_idle_replica_goes_before_its_model_unless_a_place_is_needed(max_models: int, goes: str) -> None:
    size = Footprint(ram=1)
    occupants = [Occupant("a", size, last_used=1), Occupant("a2", size, replica=True, last_used=9)]
    decided = plan(occupants, [Want("b", size)], max_models=max_models, budget=Footprint(ram=2))
    assert decided.evict == (goes,)


async def test_a_replica_goes_for_memory(pair: House) -> None:
    """The model itself goes for its place only."""
    pair.manager.limits = type(pair.manager.limits)(2, pair.manager.limits.budget)
    pair.loader.sizes["b"] = 2
    await pair.serve("b")
    assert (pair.state("a"), pair.state("a2"), pair.state("b")) == (READY, STOPPED, READY)


# -- unloading to load again -----------------------------------------------------------------------


async def test_what_is_loaded_again_keeps_its_options_and_pin(house: House) -> None:
    options = LoadOptions(context_length=7)
    loading = house.start(house.manager.load("a", options, pin=True))
    await house.loaded("a")
    await loading
    with pytest.raises(ModelConflict):
        await house.manager.unload("a")
    await house.manager.unload("a", again=True)
    assert (house.manager.options("a"), house.manager.status("a").pinned) == (options, True)
    assert not house.manager.is_wanted("a")
    await house.manager.unload("a")
    assert (house.manager.options("a"), house.manager.status("a").pinned) == (LoadOptions(), False)


async def test_unloading_calls_a_restart_off(house: House) -> None:
    await house.serve("a")
    house.engine("a").healthy = False
    await house.later(1)
    assert (house.state("a"), house.manager.is_wanted("a")) == (ModelState.FAILED, True)
    await house.manager.unload("a")
    assert (house.state("a"), house.manager.is_wanted("a")) == (STOPPED, False)
    await house.later(100)
    assert house.loads == ["a"]
    await house.serve("a")  # at once
    assert house.loads == ["a", "a"]


async def test_waiting_requests_hear_of_an_unload_when_it_begins(house: House) -> None:
    await house.serve("a")
    request = house.ask("a")
    heard: list[ModelState] = []
    serve = house.manager.on_change
    house.manager.on_change = lambda: (heard.append(house.manager.state("a")), serve())[1]
    unloading = house.start(house.manager.unload("a"))
    await house.settle()
    assert heard == [ModelState.DRAINING]
    house.end(request)
    await unloading


# -- health ----------------------------------------------------------------------------------------


async def test_a_look_finds_a_crash_at_once(house: House) -> None:
    await house.serve("a")
    house.manager.look("a")
    house.manager.look("nobody")
    await house.settle()
    assert house.state("a") is READY
    house.engine("a").healthy = False
    house.manager.look("a")
    await house.settle()
    assert house.state("a") is ModelState.FAILED


async def test_a_look_that_hangs_does_not_outlive_the_manager(house: House) -> None:
    await house.serve("a")

    async def hang() -> None:
        await asyncio.Event().wait()

    house.engine("a").health = hang  # type: ignore[method-assign]
    house.manager.look("a")
    await house.settle()


def test_restarts_wait_longer_each_time_unless_it_lived_for_a_while() -> None:
    record = Record("a")
    pauses = []
    for _ in range(9):
        record.ready_at = 100.0
        pauses.append(record.restart_pause(101.0))
    assert pauses == [1, 2, 4, 8, 16, 32, *[LONGEST_RESTART_PAUSE] * 3]
    assert record.restart_pause(100.0 + STABLE_AFTER) == 1.0


async def test_loads_are_counted(house: House) -> None:
    assert (house.manager.loads("a"), house.manager.state("a")) == (0, STOPPED)
    await house.serve("a")
    assert (house.manager.loads("a"), house.manager.state("a")) == (1, READY)
    house.loader.unreadable["b"] = "no"
    with pytest.raises(ModelLoadError):
        await house.manager.load("b")
    assert (house.manager.loads("b"), house.manager.state("b")) == (0, ModelState.FAILED)
