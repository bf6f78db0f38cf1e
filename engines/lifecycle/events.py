"""Events of state changes, and the subscriptions to them."""

from __future__ import annotations

import asyncio

from engines.lifecycle.states import ModelEvent

# A listener that is this far behind has stopped reading.
MOST_PENDING = 1000


class Subscription:
    """The events since the subscription was made, without end. ``close`` is synchronous and idempotent."""

    def __init__(self, hub: EventHub) -> None:
        self._hub = hub
        self._queue: asyncio.Queue[ModelEvent] = asyncio.Queue(MOST_PENDING)

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> ModelEvent:
        return await self._queue.get()

    def put(self, event: ModelEvent) -> None:
        """Keep ``event`` for the listener; one that lags too far loses the oldest."""
        if self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(event)

    def close(self) -> None:
        self._hub.forget(self)


class EventHub:
    """Used on the event loop's thread only."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    @property
    def listeners(self) -> int:
        return len(self._subscriptions)

    def publish(self, event: ModelEvent) -> None:
        for subscription in self._subscriptions:
            subscription.put(event)

    def subscribe(self) -> Subscription:
        subscription = Subscription(self)
        self._subscriptions.add(subscription)
        return subscription

    def forget(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)
