"""Content of messages as one chat template takes it: as text, or as a list of parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engines.errors import RequestError
from engines.text.templates.tool_history import Message
from engines.text.templates.tool_template import Render

_TEXT = "probe_content"
_PROBE = {"role": "user", "content": _TEXT}


class ContentForm:
    """The form of content that one chat template shows, found out once, by rendering a message with it.

    Templates of models that see are often written for lists alone. A list has one part of text here, in which
    marks stand for media: what a template would write for a picture by itself, the projector writes too.
    """

    def __init__(self, render: Render) -> None:
        self._render = render
        self._takes_lists: bool | None = None

    async def adapt(self, messages: Sequence[Message]) -> Sequence[Message]:
        """``messages``, whose content is text, as the template takes them."""
        if self._takes_lists is None:
            self._takes_lists = not await self._shows(_PROBE) and await self._shows(as_list(_PROBE))
        return [as_list(message) for message in messages] if self._takes_lists else messages

    async def _shows(self, message: Message) -> bool:
        try:
            rendered = await self._render([message], None)
        except RequestError:
            return False
        return rendered is None or _TEXT in rendered


def as_list(message: Message) -> Message:
    """``message`` with its content as a list."""
    content = message.get("content")
    if not isinstance(content, str):
        return message
    return {**message, "content": [{"type": "text", "text": content}]}


def with_marks(messages: Sequence[Message], marks: Sequence[str]) -> list[Message]:
    """``messages`` with content of text alone, in which ``marks`` stand for media, by their indices."""
    return [
        {**message, "content": _text(message["content"], marks)}
        if isinstance(message.get("content"), list)
        else message
        for message in messages
    ]


def _text(parts: Sequence[Mapping[str, Any]], marks: Sequence[str]) -> str:
    return "".join(part["text"] if part["type"] == "text" else marks[part["index"]] for part in parts)
