"""Engines that can sleep leave their place without being unloaded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from engines.errors import EngineError
from engines.lifecycle.errors import ModelConflict
from engines.lifecycle.states import LoadOptions, ModelState
from engines.machine.footprint import Footprint

if TYPE_CHECKING:
    from conftest import House

    MakeHouse = Callable[..., House]

FAULTS = [EngineError("no"), ZeroDivisionError("oops")]


@pytest.fixture
async def asleep(house: House) -> House:
    """A house whose model "a" sleeps while "b" is loaded."""
    house.loader.sleeping_kinds.add("a")
    await house.serve("a")
    await house.serve("b")
    assert house.state("a") is ModelState.SLEEPING
    assert house.engine("a").asleep
    return house


async def test_it_takes_no_room(asleep: House) -> None:
    assert asleep.manager.used == Footprint(ram=1)
    assert asleep.state("b") is ModelState.READY


async def test_it_wakes_when_it_is_wanted(asleep: House) -> None:
    request = asleep.ask("a")
    await asleep.settle()
    assert asleep.running == [request]
    assert not asleep.engine("a").asleep
    assert (asleep.loads, asleep.state("b")) == (["a", "b"], ModelState.STOPPED)


@pytest.mark.parametrize("error", FAULTS)
async def test_one_that_cannot_fall_asleep_is_unloaded(house: House, error: Exception) -> None:
    house.loader.sleeping_kinds.add("a")
    await house.serve("a")
    house.engine("a").sleep_error = error
    await house.serve("b")
    assert house.state("a") is ModelState.STOPPED
    assert house.engine("a").closed


@pytest.mark.parametrize("error", FAULTS)
async def test_one_that_cannot_wake_is_freed_and_then_loaded_anew(asleep: House, error: Exception) -> None:
    broken = asleep.engine("a")
    broken.wake_error = error
    request = asleep.ask("a")
    await asleep.settle()
    assert asleep.state("a") is ModelState.FAILED
    assert broken.closed
    assert request in asleep.refused
    await asleep.serve("b")
    await asleep.later(100)
    await asleep.serve("a")
    assert asleep.loads == ["a", "b", "b", "a"]


async def test_waking_that_is_called_off_frees_it(asleep: House) -> None:
    engine = asleep.engine("a")
    engine.wake_gate = asyncio.Event()
    request = asleep.ask("a")
    await asleep.settle()
    unload = asleep.start(asleep.manager.unload("a"))
    await asleep.settle()
    assert unload.done()
    assert engine.closed
    await asleep.loaded("a")
    assert asleep.running == [request]


async def test_unloading_it_frees_it(asleep: House) -> None:
    await asleep.manager.unload("a")
    assert asleep.engine("a").closed
    assert asleep.state("a") is ModelState.STOPPED


async def test_other_options_load_it_anew(asleep: House) -> None:
    long = LoadOptions(context_length=4)
    load = asleep.start(asleep.manager.load("a", long))
    await asleep.loaded("a")
    assert (await load).state is ModelState.READY
    assert asleep.loader.started[-1] == ("a", long)


async def test_other_options_conflict_while_it_wakes(asleep: House) -> None:
    asleep.engine("a").wake_gate = asyncio.Event()
    asleep.ask("a")
    await asleep.settle()
    with pytest.raises(ModelConflict):
        await asleep.manager.load("a", LoadOptions(context_length=4))


async def test_without_memory_for_both_it_is_unloaded(make_house: MakeHouse) -> None:
    house = make_house(max_models=1, ram=2)
    house.loader.sleeping_kinds.add("a")
    house.loader.kept_asleep = 2
    await house.serve("a")
    await house.serve("b")
    assert house.state("a") is ModelState.STOPPED


async def test_a_sleeper_goes_when_its_memory_is_needed(make_house: MakeHouse) -> None:
    house = make_house(max_models=1, ram=3)
    house.loader.sleeping_kinds.add("a")
    house.loader.kept_asleep = 2
    await house.serve("a")
    await house.serve("b")
    assert house.state("a") is ModelState.SLEEPING
    assert house.manager.used == Footprint(ram=3)
    house.loader.sizes["c"] = 2
    await house.serve("c")
    assert house.state("a") is ModelState.STOPPED


async def test_a_sleeper_is_unloaded_when_its_time_is_up(house: House) -> None:
    house.loader.sleeping_kinds.add("a")
    house.ask("a", keep_alive=60.0)
    await house.loaded("a")
    house.end(*house.running)
    await house.serve("b")
    assert house.state("a") is ModelState.SLEEPING
    await house.later(61)
    assert house.state("a") is ModelState.STOPPED
