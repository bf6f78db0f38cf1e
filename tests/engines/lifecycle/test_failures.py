"""Loads that fail, engines that die."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from engines.errors import EngineError, ModelLoadError
from engines.lifecycle.errors import InsufficientMemory
from engines.lifecycle.record import FIRST_COOL_DOWN, LONGEST_COOL_DOWN, RESTART_PAUSE
from engines.lifecycle.states import LoadOptions, ModelState

if TYPE_CHECKING:
    from conftest import House

    MakeHouse = Callable[..., House]


async def test_all_who_wait_get_the_reason_at_once(house: House) -> None:
    requests = [house.ask("a"), house.ask("a")]
    other = house.ask("b")
    await house.load_fails("a", "the file is cut off")
    assert [house.refused[r].message for r in requests] == ["the file is cut off"] * 2
    assert all(isinstance(house.refused[r], ModelLoadError) for r in requests)
    assert house.state("a") is ModelState.FAILED
    await house.loaded("b")
    assert house.running == [other]


async def test_any_fault_of_a_loader_is_a_failed_load(house: House) -> None:
    request = house.ask("a")
    await house.load_fails("a", ZeroDivisionError("oops"))
    assert "oops" in house.refused[request].message


async def test_a_model_that_cannot_be_estimated_fails_like_one_that_cannot_be_loaded(house: House) -> None:
    house.loader.unreadable["a"] = "not a GGUF file"
    request, other = house.ask("a"), house.ask("b")
    assert house.refused[request].message == "not a GGUF file"
    assert house.waiting == [other]
    del house.loader.unreadable["a"]
    await house.loaded("b")
    house.end(other)
    await house.later(FIRST_COOL_DOWN)
    await house.serve("a")


async def test_requests_are_refused_while_it_cools_down(house: House) -> None:
    house.ask("a")
    await house.load_fails("a", "first")
    assert house.manager.status("a").retry_after == FIRST_COOL_DOWN
    await house.later(FIRST_COOL_DOWN - 0.1)
    refused = house.ask("a")
    assert house.refused[refused].message == "first"
    assert house.loads == ["a"]
    await house.later(0.1)
    assert house.loads == ["a"], "nobody asked since"
    request = house.ask("a")
    await house.loaded("a")
    assert house.running == [request]


async def test_the_cool_down_doubles_up_to_a_limit_and_ends_with_success(house: House) -> None:
    waits = []
    for _ in range(10):
        house.ask("a")
        await house.load_fails("a", "again")
        waits.append(house.manager.status("a").retry_after)
        await house.later(waits[-1] or 0.0)
    assert waits == [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, LONGEST_COOL_DOWN, LONGEST_COOL_DOWN]
    await house.serve("a")
    await house.manager.unload("a")
    house.ask("a")
    await house.load_fails("a", "anew")
    assert house.manager.status("a").retry_after == FIRST_COOL_DOWN
    assert house.manager.counts["load_failures"] == 11


async def test_a_failed_model_takes_no_room(make_house: MakeHouse) -> None:
    house = make_house(max_models=1, ram=1)
    house.ask("a")
    await house.load_fails("a", "no")
    house.ask("b")
    await house.settle()
    assert house.loading == {"b"}


# -- preloading ------------------------------------------------------------------------------------


async def test_a_preload_that_failed_is_tried_again(house: House) -> None:
    house.manager.want("a")
    await house.load_fails("a", "the disk is not mounted yet")
    await house.later(FIRST_COOL_DOWN - 0.1)
    assert house.loading == set()
    await house.later(0.1)
    assert house.loading == {"a"}
    await house.load_fails("a", "still not")
    await house.later(2 * FIRST_COOL_DOWN)
    await house.loaded("a")
    assert house.state("a") is ModelState.READY


# -- crashes ---------------------------------------------------------------------------------------


async def crash(house: House, name: str) -> None:
    house.engine(name).healthy = False
    await house.later(1)


async def test_a_crashed_model_is_loaded_again_after_a_pause(house: House) -> None:
    await house.serve("a")
    first = house.engine("a")
    await crash(house, "a")
    assert first.closed
    status = house.manager.status("a")
    assert (status.state, status.detail, status.restarts) == (ModelState.FAILED, "no step for 60 s", 1)
    assert house.loading == set()
    await house.later(RESTART_PAUSE)
    await house.loaded("a")
    assert house.state("a") is ModelState.READY
    assert house.engine("a") is not first
    assert house.manager.counts["restarts"] == 1


async def test_requests_wait_through_a_crash(house: House) -> None:
    broken = house.ask("a")
    await house.loaded("a")
    await crash(house, "a")
    request = house.ask("a")
    house.end(broken)
    await house.later(RESTART_PAUSE)
    assert house.refused == {}
    await house.loaded("a")
    assert house.running == [request]


async def test_an_explicit_load_waits_through_a_crash(house: House) -> None:
    await house.serve("a")
    await crash(house, "a")
    load = house.start(house.manager.load("a"))
    await house.later(RESTART_PAUSE)
    await house.loaded("a")
    assert (await load).state is ModelState.READY


async def test_a_crashed_model_comes_back_even_if_an_operator_gave_up_on_it(house: House) -> None:
    await house.serve("a")
    await crash(house, "a")
    with pytest.raises(InsufficientMemory):
        await house.manager.load("a", patience=0.0)
    await house.later(RESTART_PAUSE)
    await house.loaded("a")
    assert house.state("a") is ModelState.READY


async def test_a_restart_that_fails_is_told_to_who_waits(house: House) -> None:
    await house.serve("a")
    await crash(house, "a")
    request = house.ask("a")
    await house.later(RESTART_PAUSE)
    await house.load_fails("a", "the GPU fell off the bus")
    assert house.refused[request].message == "the GPU fell off the bus"
    await house.later(FIRST_COOL_DOWN)
    await house.loaded("a")
    assert house.state("a") is ModelState.READY


async def test_uses_of_the_dead_engine_may_end_late(house: House) -> None:
    late = house.ask("a")
    await house.loaded("a")
    await crash(house, "a")
    await house.later(RESTART_PAUSE)
    await house.loaded("a")
    assert house.manager.status("a").inflight == 1
    house.end(late)
    assert house.manager.status("a").inflight == 0
    assert house.state("a") is ModelState.READY


async def test_room_waits_for_the_dead_engine_to_be_closed(house: House) -> None:
    house.loader.slow_closes = True
    await house.serve("a")
    await crash(house, "a")
    request = house.ask("b")
    await house.later(10 * RESTART_PAUSE)
    assert house.loading == set()
    gate = house.engine("a").gate
    assert gate is not None
    gate.set()
    await house.loaded("b")
    assert house.running == [request]


async def test_a_dead_engine_is_closed_before_the_next_is_loaded(make_house: MakeHouse) -> None:
    house = make_house(max_models=2)
    house.loader.slow_closes = True
    await house.serve("a")
    await crash(house, "a")
    await house.later(10 * RESTART_PAUSE)
    assert house.loading == set()
    gate = house.engine("a").gate
    assert gate is not None
    gate.set()
    await house.loaded("a")
    assert house.state("a") is ModelState.READY


@pytest.mark.parametrize("error", [EngineError("busy"), ZeroDivisionError("oops")])
async def test_an_engine_that_fails_to_close_is_let_go(house: House, error: Exception) -> None:
    await house.serve("a")
    house.engine("a").close_error = error
    await house.manager.unload("a")
    assert house.state("a") is ModelState.STOPPED
    await house.serve("b")


async def test_options_that_cannot_be_loaded_are_forgotten(house: House) -> None:
    """A later request gets the model as it is configured."""
    house.loader.sizes["a"] = 10
    with pytest.raises(EngineError, match="cannot be loaded"):
        await house.manager.load("a", LoadOptions(context_length=1000))
    await house.settle()
    load = house.start(house.manager.load("a", LoadOptions(engine="other")))
    await house.load_fails("a", "no such engine")
    with pytest.raises(ModelLoadError, match="no such engine"):
        await load
    await house.later(FIRST_COOL_DOWN)
    await house.serve("a")
    assert house.loader.started[-1] == ("a", LoadOptions())
