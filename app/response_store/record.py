"""Records of stored responses, and the items in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Item = dict[str, Any]

# What Python takes for a record, beside what is in it.
_OVERHEAD = 700

_LONGEST_ID = 256

_PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "reasoning": "rs",
}
_ID = re.compile(r"[a-z]+_(?P<response>.+)_(?P<input>i?)(?P<index>\d{1,6})")


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """One response of an owner, with the items that it was asked with beyond those of ``previous``.

    ``input`` is a JSON array of items, or a text; ``response`` the response as its client got it.
    """

    owner: str
    id: str
    previous: str | None
    input: bytes
    response: bytes

    @property
    def can_be_kept(self) -> bool:
        return is_id(self.id) and (self.previous is None or is_id(self.previous))

    @property
    def key(self) -> tuple[str, str]:
        return self.owner, self.id

    @property
    def size(self) -> int:
        return len(self.input) + len(self.response) + _OVERHEAD

    def input_items(self) -> list[Item]:
        """The items that it was asked with, each with an id."""
        items = as_items(json.loads(self.input))
        answer = self.id.removeprefix("resp_")
        return [_identified(item, answer, index) for index, item in enumerate(items)]

    def output_items(self) -> list[Item]:
        output = json.loads(self.response).get("output")
        return [item for item in output if isinstance(item, dict)] if isinstance(output, list) else []

    def item(self, id: str) -> Item | None:
        """The item of this id."""
        return next(
            (item for item in (*self.input_items(), *self.output_items()) if item.get("id") == id), None
        )


def is_id(text: str) -> bool:
    """Whether a response may be called so; no database takes every text."""
    return len(text) <= _LONGEST_ID and text.isascii() and text.isprintable()


def as_items(given: Any) -> list[Item]:
    """What a request's `input` says, as items; what is none is left out."""
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}]
    return [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []


def response_of(item_id: str) -> str | None:
    """The id of the response that has an item of this id, if this server gave it."""
    found = _ID.fullmatch(item_id)
    return None if found is None else f"resp_{found['response']}"


def conversation(records: Iterable[StoredResponse]) -> list[Item]:
    """All items of responses that follow each other, as the input of a request."""
    return [item for record in records for item in (*record.input_items(), *record.output_items())]


def _identified(item: Mapping[str, Any], answer: str, index: int) -> Item:
    kind = item.get("type") or "message"
    named = item.get("id") or f"{_PREFIXES.get(kind, 'item')}_{answer}_i{index}"
    told = {
        "id": named,
        "type": kind,
        "status": "completed",
        **{k: v for k, v in item.items() if v is not None},
    }
    if kind == "message" and isinstance(text := item.get("content"), str):
        part = "output_text" if item.get("role") == "assistant" else "input_text"
        more: Item = {"annotations": []} if part == "output_text" else {}
        told["content"] = [{"type": part, "text": text, **more}]
    if kind == "reasoning":
        del told["status"]
    return {**told, "id": named}
