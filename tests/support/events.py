"""Server-sent events as tests look at them: the JSON of each, in order."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx

from app.answer_bytes import DONE, LineSplitter, event_data


class EventReader:
    """Cuts a body into events. ``is_done``: ``[DONE]`` has come, after which nothing may."""

    def __init__(self) -> None:
        self.is_done = False
        self._lines = LineSplitter()

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        for line in filter(None, self._lines.feed(data)):
            assert not self.is_done, "nothing comes after [DONE]"
            payload = event_data(line)
            if payload == DONE:
                self.is_done = True
            elif payload is not None:
                yield json.loads(payload)


def events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """The events of a streamed answer as they come."""
    reader = EventReader()
    for data in response.iter_bytes():
        yield from reader.feed(data)


async def events_async(
    response: httpx.Response, reader: EventReader | None = None
) -> AsyncIterator[dict[str, Any]]:
    """The same of an asynchronous client; ``reader`` tells afterwards whether ``[DONE]`` came."""
    reader = reader or EventReader()
    async for data in response.aiter_bytes():
        for event in reader.feed(data):
            yield event
