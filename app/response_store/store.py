"""The store of responses: those in memory, and behind them those in the database."""

from __future__ import annotations

import time
from collections.abc import Callable

from app.errors import ApiError
from app.response_store.kept import KeptResponses
from app.response_store.recent import RecentResponses
from app.response_store.record import StoredResponse, is_id

# Responses that follow each other.
MOST_TURNS = 4096


class ResponseStore:
    """The responses of each owner. ``kept`` None: they live as long as the server."""

    def __init__(
        self, recent: RecentResponses, kept: KeptResponses | None, clock: Callable[[], float] = time.time
    ) -> None:
        self._recent = recent
        self._kept = kept
        self._clock = clock

    @property
    def keeps_nothing(self) -> bool:
        return not self._recent.count

    def put(self, record: StoredResponse) -> None:
        """Keep ``record``; the database has it a moment later."""
        if not record.can_be_kept:
            return
        now = self._clock()
        self._recent.put(record, now)
        if self._kept is not None:
            self._kept.put(record, now)

    async def find(self, owner: str, id: str) -> StoredResponse | None:
        """The response of this id, if ``owner`` has it. Raises `DatabaseUnavailable`."""
        if not is_id(id):
            return None
        key, now = (owner, id), self._clock()
        found = self._recent.get(key, now)
        if found is None and self._kept is not None:
            found = await self._kept.get(key, now)
            if found is not None:
                self._recent.put(found, now)
        return found

    async def get(self, owner: str, id: str) -> StoredResponse:
        """Raises `ApiError` (404) if ``owner`` has no such response."""
        found = await self.find(owner, id)
        if found is None:
            raise _absent(id)
        return found

    async def delete(self, owner: str, id: str) -> None:
        """Raises `ApiError` (404) if ``owner`` has no such response."""
        key = (owner, id)
        was_there = self._recent.drop(key)
        if self._kept is not None and is_id(id):
            was_there = await self._kept.delete(key) or was_there
        if not was_there:
            raise _absent(id)

    async def conversation(self, owner: str, id: str, most_bytes: int) -> list[StoredResponse]:
        """The response ``id`` and all that it follows, the first one first; they count as used.

        Raises `ApiError` if one of them is not there, or they are too long.
        """
        found: list[StoredResponse] = []
        size, wanted = 0, id
        while True:
            record = await self.find(owner, wanted)
            if record is None:
                raise _not_followed(id, wanted)
            found.append(record)
            size += record.size
            if size > most_bytes or len(found) > MOST_TURNS:
                raise _too_long(id)
            if record.previous is None:
                break
            wanted = record.previous
        for each in found:
            self._recent.use(each.key, self._clock())
            if self._kept is not None:
                self._kept.use(each.key, self._clock())
        return found[::-1]

    async def close(self) -> None:
        """Write what waits for the database."""
        if self._kept is not None:
            await self._kept.close(self._clock())


def _absent(id: str) -> ApiError:
    return ApiError(
        404,
        "response_not_found",
        f"There is no response {id[:80]!r}: it was not stored, is gone, or belongs to another key.",
    )


def _not_followed(id: str, wanted: str) -> ApiError:
    of = "" if wanted == id else f", which {id[:80]!r} follows,"
    return ApiError(
        404,
        "previous_response_not_found",
        f"There is no response {wanted[:80]!r}{of} here: it was not stored, is gone, or belongs to another "
        "key. Send the conversation in `input` instead.",
        "previous_response_id",
    )


def _too_long(id: str) -> ApiError:
    return ApiError(
        413,
        "request_too_large",
        f"What {id[:80]!r} follows has become too long to be sent again: begin a new conversation.",
        "previous_response_id",
    )
