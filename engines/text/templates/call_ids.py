"""Ids of calls in a conversation, in the form that a chat template insists on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Message = Mapping[str, Any]
IdForm = Callable[[str, str, int], str]
"""The id that a template is given for an id, the function's name, and the number of calls before it."""

_NINE = re.compile(r"[A-Za-z0-9]{9}")
_NUMBERED = re.compile(r"functions\.[^:]+:\d+")


def as_given(call_id: str, name: str, number: int) -> str:
    """Whatever the client sent."""
    return call_id


def nine_characters(call_id: str, name: str, number: int) -> str:
    """Nine letters and digits, as Mistral's templates want it: the same for the same id."""
    return call_id if _NINE.fullmatch(call_id) else hashlib.sha256(call_id.encode()).hexdigest()[:9]


def numbered(call_id: str, name: str, number: int) -> str:
    """The function's name and a number, as Kimi's write it: their templates show no other name."""
    return call_id if _NUMBERED.fullmatch(call_id) else f"functions.{name}:{number}"


ID_FORMS: tuple[IdForm, ...] = (as_given, nine_characters, numbered)
"""The likelier first."""


def with_ids(messages: Iterable[Message], form: IdForm) -> list[Message]:
    """``messages``, ids in ``form``; a result gets its function's name if it lacks it.

    Some clients begin to count anew in each turn, so a result belongs to the last call of its id.
    """
    known: dict[str, tuple[str, str]] = {}
    count = 0
    found: list[Message] = []
    for message in messages:
        if calls := message.get("tool_calls"):
            renamed = []
            for call in calls:
                name = call["function"]["name"]
                known[call["id"]] = form(call["id"], name, count), name
                renamed.append({**call, "id": known[call["id"]][0]})
                count += 1
            found.append({**message, "tool_calls": renamed})
        elif message["role"] == "tool" and message.get("tool_call_id") in known:
            call_id, name = known[message["tool_call_id"]]
            found.append({"name": name, **message, "tool_call_id": call_id})
        else:
            found.append(message)
    return found
