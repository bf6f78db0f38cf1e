"""Who listens hears of every change of state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engines.lifecycle.events import MOST_PENDING, EventHub, Subscription
from engines.lifecycle.states import ModelEvent, ModelState

if TYPE_CHECKING:
    from conftest import House


def event(number: int) -> ModelEvent:
    return ModelEvent("a", ModelState.STOPPED, ModelState.LOADING, float(number))


async def drained(subscription: Subscription) -> list[ModelEvent]:
    """What was heard so far."""
    last = event(-1)
    subscription.put(last)
    heard = []
    async for heard_event in subscription:
        if heard_event is last:
            break
        heard.append(heard_event)
    return heard


async def test_every_change_of_state_is_told(house: House) -> None:
    subscription = house.manager.events.subscribe()
    await house.serve("a")
    await house.serve("b")
    house.ask("c")
    await house.load_fails("c", "the file is cut off")
    heard = [(e.name, e.previous, e.state) for e in await drained(subscription)]
    stopped, loading, ready = ModelState.STOPPED, ModelState.LOADING, ModelState.READY
    draining, failed = ModelState.DRAINING, ModelState.FAILED
    assert [change for change in heard if change[0] == "a"] == [
        ("a", stopped, loading),
        ("a", loading, ready),
        ("a", ready, draining),
        ("a", draining, stopped),
    ]
    assert heard[-1] == ("c", loading, failed)


async def test_the_reason_is_told(house: House) -> None:
    subscription = house.manager.events.subscribe()
    house.ask("a")
    await house.load_fails("a", "the file is cut off")
    assert [e.detail for e in await drained(subscription)] == ["", "the file is cut off"]


async def test_who_lags_loses_the_oldest() -> None:
    hub = EventHub()
    slow, quick = hub.subscribe(), hub.subscribe()
    for number in range(MOST_PENDING):
        hub.publish(event(number))
    assert len(await drained(quick)) == MOST_PENDING - 1  # `drained` puts one more
    hub.publish(event(MOST_PENDING))
    assert [e.at for e in await drained(slow)] == [float(n) for n in range(2, MOST_PENDING + 1)]
    assert [e.at for e in await drained(quick)] == [float(MOST_PENDING)]


async def test_who_closes_is_forgotten() -> None:
    hub = EventHub()
    subscription = hub.subscribe()
    subscription.close()
    subscription.close()
    assert hub.listeners == 0
    hub.publish(event(1))
    assert await drained(subscription) == []
