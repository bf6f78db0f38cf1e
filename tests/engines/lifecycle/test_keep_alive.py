"""How long a model stays that nobody uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from engines.lifecycle.states import ModelState, Retention
from engines.models.catalog import FOREVER

if TYPE_CHECKING:
    from conftest import House

    MakeHouse = Callable[..., House]


async def test_forever_is_the_default(house: House) -> None:
    await house.serve("a")
    await house.later(1e9)
    assert house.state("a") is ModelState.READY
    assert house.manager.status("a").expires_in is None


async def test_it_is_unloaded_that_long_after_its_last_use(house: House) -> None:
    house.loader.retentions["a"] = Retention(keep_alive=10)
    await house.serve("a")
    await house.later(6)
    await house.serve("a")
    await house.later(9)
    assert house.state("a") is ModelState.READY
    assert house.manager.status("a").expires_in == 1.0
    await house.later(1)
    assert house.state("a") is ModelState.STOPPED
    assert house.manager.counts["expirations"] == 1


async def test_a_use_may_last_longer(house: House) -> None:
    house.loader.retentions["a"] = Retention(keep_alive=10)
    request = house.ask("a")
    await house.loaded("a")
    await house.later(100)
    assert house.state("a") is ModelState.READY
    house.end(request)
    await house.later(9)
    assert house.state("a") is ModelState.READY


async def test_zero_unloads_after_the_last_use_ended(house: House) -> None:
    first, second = house.ask("a", keep_alive=0), house.ask("a")
    await house.loaded("a")
    house.end(first)
    assert house.state("a") is ModelState.READY
    house.end(second)
    await house.settle()
    assert house.state("a") is ModelState.STOPPED


async def test_zero_waits_for_those_who_wait_for_the_same_model(house: House) -> None:
    """The balancer may be full, so that they cannot be served in that very moment."""
    request = house.ask("a", keep_alive=0)
    await house.loaded("a")
    house.manager.on_change = lambda: house.manager.demand(["a"])
    house.manager.on_change()
    house.end(request)
    await house.later(1)
    assert house.state("a") is ModelState.READY
    house.manager.on_change = house.changed
    await house.serve("a")
    assert house.loads == ["a"]
    assert house.state("a") is ModelState.STOPPED


async def test_zero_does_not_stand_in_the_way_of_a_switch(house: House) -> None:
    request = house.ask("a", keep_alive=0)
    await house.loaded("a")
    other, again = house.ask("b"), house.ask("a")
    house.end(request)
    await house.loaded("b")
    house.end(other)
    await house.loaded("a")
    assert house.running == [again]
    assert house.loads == ["a", "b", "a"]


async def test_a_use_overrides_the_models_own(house: House) -> None:
    house.loader.retentions["a"] = Retention(keep_alive=10)
    await house.serve("a", keep_alive=100)
    await house.later(50)
    assert house.state("a") is ModelState.READY
    assert house.manager.status("a").expires_in == 50.0
    await house.serve("a", keep_alive=FOREVER)
    await house.later(1e9)
    assert house.state("a") is ModelState.READY


async def test_what_a_use_says_ends_with_the_model(house: House) -> None:
    """One request with keep_alive 0 must not have every later one wait for a load."""
    await house.serve("a", keep_alive=0)
    await house.settle()
    await house.serve("a")
    await house.later(1000)
    assert house.state("a") is ModelState.READY
    assert house.manager.status("a").keep_alive == FOREVER


@pytest.mark.parametrize("first_use", [False, True])
async def test_zero_lets_a_model_that_was_loaded_on_purpose_be_used_once(
    house: House, first_use: bool
) -> None:
    if first_use:
        await house.serve("a", keep_alive=0)
    house.manager.want("a", keep_alive=0)
    await house.loaded("a")
    await house.later(10)
    assert house.state("a") is ModelState.READY
    await house.serve("a")
    assert house.state("a") is ModelState.STOPPED


async def test_an_explicit_load_sets_what_later_uses_keep(house: House) -> None:
    await house.serve("a", keep_alive=0)
    house.manager.want("a", keep_alive=10)
    await house.loaded("a")
    await house.serve("a")
    await house.later(9)
    assert house.state("a") is ModelState.READY
    await house.later(1)
    assert house.state("a") is ModelState.STOPPED


async def test_zero_for_an_idle_model_unloads_it(house: House) -> None:
    await house.serve("a")
    house.manager.want("a", keep_alive=0)
    await house.later(0)
    assert house.state("a") is ModelState.STOPPED


async def test_pinned_models_do_not_expire(house: House) -> None:
    house.loader.retentions["a"] = Retention(pin=True, keep_alive=1)
    await house.serve("a")
    await house.later(100)
    assert house.state("a") is ModelState.READY
    house.manager.want("a", pin=False)
    await house.later(0)
    assert house.state("a") is ModelState.STOPPED


async def test_a_loaded_model_that_nobody_came_for_expires(house: House) -> None:
    house.loader.retentions["a"] = Retention(keep_alive=10)
    house.leave(house.ask("a"))
    await house.loaded("a")
    await house.later(10)
    assert house.state("a") is ModelState.STOPPED
