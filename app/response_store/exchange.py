"""What a request for a response takes from the store, and what its answer leaves there."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from app.inference.wire_request import WireRequest
from app.response_store.record import Item, StoredResponse, as_items, conversation, response_of
from app.response_store.store import ResponseStore
from app.telemetry.logs import get_logger

log = get_logger("responses")

# Bytes of an answer that is kept.
MOST_BYTES = 16 * 2**20
# Bytes of a conversation that are not put together on the event loop.
LARGE = 256 * 1024
# References to items that are looked up for one request.
MOST_REFERENCES = 1024

_PREVIOUS = "previous_response_id"
_FINAL = re.compile(rb"response\.(?:completed|incomplete)")
_ENDS = frozenset({"response.completed", "response.incomplete"})
_CARRIED = 64


class ResponseExchange:
    """The store, for the requests of one ``owner``. A request becomes ``most_bytes`` long at most."""

    def __init__(self, store: ResponseStore, owner: str, most_bytes: int) -> None:
        self._store = store
        self._owner = owner
        self._most_bytes = most_bytes

    async def expand(self, wire: WireRequest, document: Any) -> tuple[WireRequest, Any]:
        """The request with everything in it that it refers to, so that nobody else needs the store.

        Who reads ``document`` still sees what it follows, as do workers, in whose answers it stands; others
        would look for it. Raises `ApiError` for what is not there, and `DatabaseUnavailable`.
        """
        if not isinstance(document, dict):
            return wire, document
        notes: dict[str, Any] = {}
        if self._store.keeps_nothing and document.get("store") is not False:
            notes["store"] = False  # the response is to say so
            wire, document = replace(wire, worker_fields=notes), {**document, **notes}
        previous, given = document.get(_PREVIOUS), document.get("input")
        records: list[StoredResponse] = []
        if isinstance(previous, str):
            records = await self._store.conversation(self._owner, previous, self._most_bytes)
        elif not _has_references(given):
            return wire, document
        own = await self._resolved(as_items(given))
        if sum(record.size for record in records) > LARGE:
            body, whole = await asyncio.to_thread(_expanded, document, records, own)
        else:
            body, whole = _expanded(document, records, own)
        if records:
            notes[_PREVIOUS] = previous
        return replace(wire, body=body, worker_fields=notes), whole

    async def records(self, id: str) -> list[StoredResponse]:
        """The stored response ``id``, and in front of it those that it follows. Raises `ApiError` (404)."""
        await self._store.get(self._owner, id)
        return await self._store.conversation(self._owner, id, self._most_bytes)

    async def _resolved(self, items: list[Item]) -> list[Item]:
        """``items``, with those in the place of references that are stored here."""
        found: list[Item] = []
        room = MOST_REFERENCES
        for item in items:
            if _is_reference(item) and room:
                room -= 1
                item = await self._referred(str(item["id"])) or item
            found.append(item)
        return found

    async def _referred(self, id: str) -> Item | None:
        response = response_of(id)
        record = await self._store.find(self._owner, response) if response is not None else None
        return None if record is None else record.item(id)

    def keeper(self, document: Any) -> ResponseKeeper | None:
        """Whoever is to see the answer to ``document``, a request as it came; None: it is not to be kept."""
        if self._store.keeps_nothing or not isinstance(document, Mapping) or document.get("store") is False:
            return None
        return ResponseKeeper(self._store, self._owner, document)


class ResponseKeeper:
    """Puts an answer into the store, from the bytes that pass, whoever made them (`AnswerObserver`)."""

    def __init__(self, store: ResponseStore, owner: str, document: Mapping[str, Any]) -> None:
        self._store = store
        self._owner = owner
        self._document = document
        self._is_events = False
        self._is_kept = False
        self._carried = b""  # the end of what came, in which the end may begin
        self._parts: list[bytes] = []
        self._size = 0

    def began(self, status: int, *, is_events: bool) -> None:
        self._is_kept, self._is_events = status == 200, is_events

    def saw(self, data: bytes) -> None:
        if not self._is_kept:
            return
        if self._is_events and not self._parts:
            window = self._carried + data
            final = _FINAL.search(window)
            if final is None:
                self._carried = window[-_CARRIED:]
                return
            data = window[window.rfind(b"\n", 0, final.start()) + 1 :]
        self._parts.append(data)
        self._size += len(data)
        if self._size > MOST_BYTES:
            self._is_kept, self._parts = False, []

    def ended(self) -> None:
        if not self._is_kept:
            return
        data = b"".join(self._parts)
        response = _last_response(data) if self._is_events else _loaded(data)
        if not isinstance(response, dict) or not isinstance(response.get("id"), str):
            log.warning("response_not_stored", reason="it cannot be read")
            return
        previous = self._document.get(_PREVIOUS)
        self._store.put(
            StoredResponse(
                self._owner,
                response["id"],
                previous if isinstance(previous, str) else None,
                json.dumps(self._document.get("input")).encode(),
                data
                if not self._is_events
                else json.dumps(response, ensure_ascii=False).encode("utf-8", "replace"),
            )
        )


def _expanded(
    document: Mapping[str, Any], records: Sequence[StoredResponse], own: Sequence[Item]
) -> tuple[bytes, dict[str, Any]]:
    """The body that others get, and the document, of a request whose own items follow ``records``."""
    whole = {**document, "input": [*conversation(records), *own]}
    sent = {name: value for name, value in whole.items() if name != _PREVIOUS}
    return json.dumps(sent).encode(), whole


def _has_references(given: Any) -> bool:
    return isinstance(given, list) and any(_is_reference(item) for item in given)


def _is_reference(item: Any) -> bool:
    if not isinstance(item, dict) or not isinstance(item.get("id"), str):
        return False
    kind = item.get("type")
    return kind == "item_reference" or (kind is None and "role" not in item)


def _last_response(data: bytes) -> Any:
    """The response that the last event with one has."""
    for line in reversed(data.splitlines()):
        if line.startswith(b"data:"):
            event = _loaded(line[5:])
            if isinstance(event, dict) and event.get("type") in _ENDS:
                return event.get("response")
    return None


def _loaded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
