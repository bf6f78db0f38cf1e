"""System messages in the midst of a conversation, in a form that a model's chat template shows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from engines.errors import RequestError

Message = Mapping[str, Any]
Render = Callable[[Sequence[Message]], Awaitable[str | None]]
"""Renders messages without a generation prompt; None where nothing needs to be found out."""

_ORDER = ("probe_first", "probe_late", "probe_last")
_PROBE = [
    {"role": "user", "content": _ORDER[0]},
    {"role": "system", "content": _ORDER[1]},
    {"role": "assistant", "content": "probe_said"},
    {"role": "user", "content": _ORDER[2]},
]


class LateSystem:
    """The system messages behind the first message that one chat template is given.

    Some templates refuse them, leave them out without a word, or gather them in front, where each new one
    would change all that is cached. What this one does is found out once, when the first comes; where it does
    not show them in their place, they become marked parts of what the user said there.
    """

    def __init__(self, render: Render) -> None:
        self._render = render
        self._shows: bool | None = None

    async def adapt(self, messages: Sequence[Message]) -> Sequence[Message]:
        """``messages``, with system messages as the template takes them."""
        if all(message["role"] != "system" for message in messages[1:]):
            return messages
        if self._shows is None:
            self._shows = await self._find()
        return messages if self._shows else _told_by_user(messages)

    async def _find(self) -> bool:
        try:
            text = await self._render(_PROBE)
        except RequestError:
            return False
        if text is None:
            return True
        places = [text.find(each) for each in _ORDER]
        return places[0] >= 0 and places == sorted(places)


def _told_by_user(messages: Sequence[Message]) -> list[Message]:
    """Each late system message joins what stands in front of it, if that is not the model's own, else what
    the user says next: turns stay as they are, as some templates count them."""
    told: list[Message] = []
    waiting = ""  # for what the user says next
    is_open = False  # the last message has got something
    for message in messages:
        role = message["role"]
        if role == "system" and told:
            if waiting or told[-1]["role"] == "assistant":
                waiting += _marked(message)
            else:
                told[-1], is_open = _with(told[-1], _marked(message, told[-1]["role"])), True
            continue
        if role == "user" and (waiting or (is_open and told[-1]["role"] == "user")):
            if waiting:
                told.append({"role": "user", "content": waiting.rstrip()})
                waiting = ""
            told[-1], is_open = _with(told[-1], "\n\n", message["content"]), True
            continue
        if waiting:
            told.append({"role": "user", "content": waiting.rstrip()})
            waiting = ""
        told.append(message)
        is_open = False
    return [*told, {"role": "user", "content": waiting.rstrip()}] if waiting else told


def _marked(message: Message, behind: str = "") -> str:
    """A system message as a part of another one; the system's own needs no marks."""
    text = message["content"]
    if behind == "system":
        return f"\n\n{text}"
    marked = f"<system>\n{text}\n</system>"
    return f"\n\n{marked}" if behind else f"{marked}\n\n"


def _with(message: Message, *more: Any) -> Message:
    """``message`` with more content behind its own: texts, and lists of parts."""
    contents = [message["content"] or "", *more]
    if all(isinstance(each, str) for each in contents):
        return {**message, "content": "".join(contents)}
    parts = [
        part
        for each in contents
        for part in ([{"type": "text", "text": each}] if isinstance(each, str) else each)
    ]
    return {**message, "content": parts}
