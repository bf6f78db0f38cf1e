"""The way of chunks and failures from the engine thread to the event loop, one wake-up of the loop a step."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Generic, TypeVar

from engines.base import Chunk
from engines.batching.sequence import Sequence
from engines.errors import EngineError

logger = logging.getLogger("engines")


S = TypeVar("S", bound=Sequence)


class Deliveries(Generic[S]):
    """The sequences whose end the loop waits for, and the chunks that the engine thread has for them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._live: set[S] = set()
        self._pending: list[tuple[S, Chunk | EngineError]] = []
        self._watchers: list[asyncio.Future[None]] = []

    # -- called on the event loop's thread ---------------------------------------------------------

    async def drained(self, wanted: Callable[[S], bool]) -> None:
        """Return when no sequence is ``wanted`` of those that were submitted and have not ended."""
        while any(map(wanted, self._live)):
            self._watchers.append(watcher := self._loop.create_future())
            await watcher

    @property
    def awaited(self) -> bool:
        """Whether any sequence was submitted and has not ended."""
        return bool(self._live)

    def expect(self, sequence: S) -> None:
        self._live.add(sequence)

    def forget(self, sequence: S) -> None:
        self._live.discard(sequence)
        self._wake_watchers()

    def fail_all(self, error: EngineError) -> None:
        """Fail every sequence that is awaited."""
        live, self._live = self._live, set()
        for sequence in live:
            sequence.stream.fail(error)
        self._wake_watchers()

    def _wake_watchers(self) -> None:
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(None)

    # -- called on the engine thread ---------------------------------------------------------------

    def add(self, sequence: S, what: Chunk | EngineError) -> None:
        """Keep ``what`` for the next `send`."""
        self._pending.append((sequence, what))

    def send(self) -> None:
        """Hand over what was kept, with one wake-up of the loop for all of it."""
        if self._pending:
            pending, self._pending = self._pending, []
            self.call_loop(lambda: self._deliver(pending))

    def call_loop(self, callback: Callable[[], None]) -> None:
        """Run ``callback`` on the loop's thread, if there is still a loop."""
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            logger.debug("the event loop is closed; nobody is left to tell")

    # -- back on the event loop's thread -----------------------------------------------------------

    def _deliver(self, pending: list[tuple[S, Chunk | EngineError]]) -> None:
        for sequence, what in pending:
            if isinstance(what, EngineError):
                self._live.discard(sequence)
                sequence.stream.fail(what)
            else:
                if what.finish_reason is not None:
                    self._live.discard(sequence)
                sequence.stream.put(what)
        if self._watchers:
            self._wake_watchers()
