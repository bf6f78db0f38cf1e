"""Models that are loaded and unloaded on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from engines.errors import ModelLoadError
from engines.lifecycle.errors import InsufficientMemory, ModelConflict
from engines.lifecycle.states import LoadOptions, ModelState, Retention

if TYPE_CHECKING:
    from conftest import House

    MakeHouse = Callable[..., House]

LONG = LoadOptions(context_length=4)


# -- load ------------------------------------------------------------------------------------------


async def test_load_returns_when_the_model_is_ready(house: House) -> None:
    load = house.start(house.manager.load("a", LONG))
    await house.settle()
    assert not load.done()
    await house.loaded("a")
    assert (await load).state is ModelState.READY
    assert house.loader.started == [("a", LONG)]


async def test_load_joins_the_load_that_is_under_way(house: House) -> None:
    request = house.ask("a")
    loads = [house.start(house.manager.load("a")) for _ in range(3)]
    await house.loaded("a")
    assert [(await load).loads for load in loads] == [1, 1, 1]
    assert house.running == [request]
    assert house.loads == ["a"]


async def test_loading_what_is_loaded_returns_at_once(house: House) -> None:
    await house.serve("a")
    assert (await house.manager.load("a")).loads == 1


async def test_load_says_why_it_failed_to_all_who_joined(house: House) -> None:
    loads = [house.start(house.manager.load("a")) for _ in range(2)]
    await house.load_fails("a", "the file is cut off")
    for load in loads:
        with pytest.raises(ModelLoadError, match="cut off"):
            await load
    await house.later(1000)
    assert house.loading == set(), "who loads on purpose tries again on purpose"


async def test_load_says_at_once_what_can_never_fit(make_house: MakeHouse) -> None:
    house = make_house(ram=3)
    loads = [house.start(house.manager.load("a", LONG)) for _ in range(2)]
    for load in loads:
        with pytest.raises(InsufficientMemory, match="memory budget"):
            await load
    await house.settle()
    assert house.manager.refusal("a") is None
    await house.serve("a")


async def test_load_does_not_wait_for_the_cool_down(house: House) -> None:
    house.ask("a")
    await house.load_fails("a", "the file is cut off")
    load = house.start(house.manager.load("a"))
    await house.loaded("a")
    assert (await load).state is ModelState.READY


async def test_load_makes_room_like_a_request(house: House) -> None:
    request = house.ask("a")
    await house.loaded("a")
    load = house.start(house.manager.load("b"))
    await house.settle()
    assert house.manager.status("b").waits_for_room
    house.end(request)
    await house.loaded("b")
    assert (await load).state is ModelState.READY


async def test_load_waits_for_room_no_longer_than_it_has_patience(house: House) -> None:
    request = house.ask("a")
    await house.loaded("a")
    with pytest.raises(InsufficientMemory, match="in use") as refused:
        await house.manager.load("b", patience=0)
    assert refused.value.retry_after is not None
    await house.settle()
    assert house.manager.can_serve("a"), "nobody needs its room any more"
    house.end(request)
    await house.manager.unload("a")
    load = house.start(house.manager.load("b", patience=0))
    await house.settle()
    house.now += 1
    await house.loaded("b")
    assert (await load).state is ModelState.READY, "a load that has begun is waited for"


async def test_load_with_patience_waits(house: House) -> None:
    request = house.ask("a")
    await house.loaded("a")
    load = house.start(house.manager.load("b", patience=60))
    await house.settle()
    house.end(request)
    await house.loaded("b")
    assert (await load).state is ModelState.READY


async def test_load_that_waits_is_told_when_there_will_be_no_room(house: House) -> None:
    house.ask("a")
    await house.loaded("a")
    loads = [house.start(house.manager.load("b")) for _ in range(2)]
    await house.settle()
    house.manager.want("a", pin=True)
    await house.settle()
    for load in loads:
        assert load.done()
        with pytest.raises(InsufficientMemory, match="pinned models"):
            await load


async def test_other_options_conflict_with_a_model_in_use(house: House) -> None:
    request = house.ask("a")
    await house.settle()
    with pytest.raises(ModelConflict, match="loading with other settings"):
        await house.manager.load("a", LONG)
    await house.loaded("a")
    with pytest.raises(ModelConflict, match="unload it first"):
        await house.manager.load("a", LONG)
    assert house.running == [request]
    assert house.manager.can_serve("a")


async def test_other_options_reload_an_idle_model(house: House) -> None:
    house.loader.slow_closes = True
    await house.serve("a")
    load = house.start(house.manager.load("a", LONG))
    await house.settle()
    assert house.loading == set()
    gate = house.engine("a").gate
    assert gate is not None
    gate.set()
    await house.loaded("a")
    assert (await load).loads == 2
    assert house.loader.started[-1] == ("a", LONG)
    assert house.manager.used.ram == 4


async def test_a_model_can_be_pinned_and_unpinned(make_house: MakeHouse) -> None:
    house = make_house(max_models=2)
    house.manager.want("a", pin=True)
    await house.loaded("a")
    house.now += 1
    await house.serve("b")
    await house.serve("c")
    assert (house.state("a"), house.state("b")) == (ModelState.READY, ModelState.STOPPED)
    house.manager.want("a", pin=False)
    await house.serve("d")
    assert house.state("a") is ModelState.STOPPED


# -- unload ----------------------------------------------------------------------------------------


async def test_unload_lets_requests_end(house: House) -> None:
    request = house.ask("a")
    await house.loaded("a")
    unload = house.start(house.manager.unload("a"))
    await house.settle()
    assert house.state("a") is ModelState.DRAINING
    assert not house.manager.can_serve("a")
    assert not house.engine("a").closed
    house.end(request)
    assert (await unload).state is ModelState.STOPPED
    assert house.engine("a").closed


async def test_force_does_not_wait_for_requests(house: House) -> None:
    request = house.ask("a")
    await house.loaded("a")
    polite = house.start(house.manager.unload("a"))
    await house.settle()
    assert (await house.manager.unload("a", force=True)).state is ModelState.STOPPED
    assert (await polite).state is ModelState.STOPPED
    house.end(request)
    assert house.manager.status("a").inflight == 0


async def test_two_who_unload_do_not_keep_each_other_awake(house: House) -> None:
    request = house.ask("a")
    await house.loaded("a")
    unloads = [house.start(house.manager.unload("a")) for _ in range(2)]
    await house.settle()
    watcher = asyncio.ensure_future(house.next_change("a"))
    await house.settle()
    assert not watcher.done(), "nothing changed"
    house.end(request)
    await asyncio.gather(*unloads, watcher)


async def test_unload_calls_a_load_off(house: House) -> None:
    load = house.start(house.manager.load("a"))
    await house.settle()
    assert (await house.manager.unload("a")).state is ModelState.STOPPED
    with pytest.raises(ModelConflict, match="called off"):
        await load
    assert house.loader.cleanups == 1


async def test_a_load_can_be_called_off_before_it_began(house: House) -> None:
    """Its task was created in this very turn of the loop."""
    house.manager.want("a")
    async with asyncio.timeout(1):
        assert (await house.manager.unload("a")).state is ModelState.STOPPED


async def test_calling_off_twice_does_not_disturb_the_cleaning_up(house: House) -> None:
    house.loader.slow_cleanup = asyncio.Event()
    house.manager.want("a")
    await house.settle()
    unloads = [house.start(house.manager.unload("a"))]
    await house.settle()
    unloads.append(house.start(house.manager.unload("a")))
    await house.settle()
    assert not any(unload.done() for unload in unloads)
    house.loader.slow_cleanup.set()
    await asyncio.gather(*unloads)
    assert house.loader.cleanups == 1


async def test_unload_calls_off_a_load_that_waits_for_room(house: House) -> None:
    request = house.ask("a")
    await house.loaded("a")
    load = house.start(house.manager.load("b"))
    await house.settle()
    assert not house.manager.can_serve("a")
    await house.manager.unload("b")
    assert house.manager.can_serve("a"), "nobody needs its room any more"
    async with asyncio.timeout(1):
        with pytest.raises(ModelConflict, match="called off"):
            await load
    house.end(request)


async def test_unload_returns_although_others_have_it_loaded_again(house: House) -> None:
    running = house.ask("a")
    await house.loaded("a")
    unload = house.start(house.manager.unload("a"))
    await house.settle()
    waiting = house.ask("a")
    house.end(running)
    await house.settle()
    assert unload.done()
    assert house.loading == {"a"}
    again = house.start(house.manager.unload("a"))
    await house.settle()
    assert again.done(), "that load was called off, the next is none of its business"
    await house.loaded("a")
    assert house.running == [waiting]
    assert house.loads == ["a", "a", "a"]


async def test_unloading_forgets_options(house: House) -> None:
    load = house.start(house.manager.load("a", LONG))
    await house.loaded("a")
    await load
    await house.manager.unload("a")
    await house.serve("a")
    assert [options for _, options in house.loader.started] == [LONG, LoadOptions()]


async def test_a_pinned_model_is_unloaded_by_force_only(house: House) -> None:
    house.loader.retentions["a"] = Retention(pin=True)
    await house.serve("a")
    with pytest.raises(ModelConflict, match="pinned"):
        await house.manager.unload("a")
    assert house.state("a") is ModelState.READY
    await house.manager.unload("a", force=True)
    assert house.state("a") is ModelState.STOPPED


async def test_unloading_what_is_not_loaded_is_no_error(house: House) -> None:
    assert (await house.manager.unload("a")).state is ModelState.STOPPED


# -- stop ------------------------------------------------------------------------------------------
# The fixture stops every house of every test, and checks that nothing is left.


async def test_stop_frees_models_in_every_state(make_house: MakeHouse) -> None:
    house = make_house(max_models=4)
    house.loader.sleeping_kinds = {"asleep"}
    await house.serve("ready")
    await house.serve("asleep")
    house.manager._lifecycle.evict(house.manager._records["asleep"], may_sleep=True)  # nobody needs its room
    await house.settle()
    assert house.state("asleep") is ModelState.SLEEPING
    busy = house.ask("busy")
    await house.loaded("busy")
    drain = house.start(house.manager.unload("busy"))
    house.ask("loading")
    house.manager.want("waiting")
    await house.settle()
    await house.stop()
    await drain
    assert {status.state for status in house.manager.statuses()} == {ModelState.STOPPED}
    house.end(busy)


async def test_nothing_is_loaded_again_after_stop(house: House) -> None:
    """Requests may still wait when the server shuts down."""
    house.ask("a")
    house.ask("b")
    await house.settle()
    await house.stop()
    house.ask("c")
    await house.settle()
    assert house.loads == ["a"]


async def test_stop_ends_the_watch_of_an_empty_house(house: House) -> None:
    await house.stop()
