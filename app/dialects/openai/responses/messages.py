"""Conversations of items, as messages that chat templates take."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from app.dialects.openai.responses import reasoning
from app.dialects.openai.responses.files import file_text
from app.dialects.openai.responses.items import (
    HOSTED_ITEMS,
    CallResultItem,
    Contents,
    CustomCallItem,
    FunctionCallItem,
    ItemPart,
    MessageItem,
    ReasoningItem,
    ReferenceItem,
)
from app.dialects.openai.responses.tools import Toolbox
from app.dialects.openai.unsupported import unsupported
from app.inference.media import MediaList
from app.schemas.unknown_fields import UnknownField
from engines.errors import RequestError

_TEXTS = frozenset({"input_text", "output_text", "text", "reasoning_text", "summary_text"})
_KINDS = {"input_file": "a file that is no text in a data URL", "input_video": "video input"}


class ItemHistory:
    """The messages of a request, item by item: what an assistant said in a row is one message.

    ``media`` are the images and sounds in them, and ``skipped`` the items that nothing can be read from.
    """

    def __init__(self, toolbox: Toolbox) -> None:
        self.messages: list[dict[str, Any]] = []
        self.media = MediaList()
        self.skipped: list[UnknownField] = []
        self._toolbox = toolbox
        self._is_open = False  # the last message, which is an assistant's

    def instruct(self, text: str) -> None:
        """Add ``text`` to the system message in front of everything, or begin with one."""
        if self.messages and self.messages[-1]["role"] == "system" and len(self.messages) == 1:
            before = self.messages[-1]["content"]
            self.messages[-1]["content"] = f"{before}\n\n{text}" if before else text
        else:
            self._put({"role": "system", "content": text})

    def add(self, items: str | Iterable[Any]) -> None:
        """Add what a request's `input` has. Raises `RequestError` and `UnsupportedFeature`."""
        if isinstance(items, str):
            self._put({"role": "user", "content": items})
            return
        for index, item in enumerate(items):
            self._add(item, f"input.{index}")

    def whole(self) -> tuple[dict[str, Any], ...]:
        """The messages as templates take them: one that only calls tools is told by its null."""
        for message in self.messages:
            if message["content"] is None and "tool_calls" not in message:
                message["content"] = ""
        return tuple(self.messages)

    def _add(self, item: Any, where: str) -> None:
        match item:
            case MessageItem(role="assistant"):
                self._say(self._text(item.content, f"{where}.content"))
            case MessageItem(role="user"):
                self._put({"role": "user", "content": self._content(item.content, f"{where}.content")})
            case MessageItem():
                self.instruct(self._text(item.content, f"{where}.content"))
            case FunctionCallItem():
                self._call(item, "function", item.arguments)
            case CustomCallItem():
                self._call(item, "custom", json.dumps({"input": item.input}, ensure_ascii=False))
            case CallResultItem():
                content = self._content(item.output, f"{where}.output")
                self._put({"role": "tool", "content": content, "tool_call_id": item.call_id})
            case ReasoningItem():
                self._reason(reasoning.text_of(item))
            case ReferenceItem():
                raise RequestError(
                    f"there is no stored item {(item.id or '')[:80]!r}: send the item itself", param=where
                )
            case _:
                self._skip(item, where)

    def _put(self, message: dict[str, Any]) -> None:
        self.messages.append(message)
        self._is_open = False

    def _assistant(self, *, after_calls: bool) -> dict[str, Any]:
        """The assistant's message that goes on, or a new one; ``after_calls``: also if it called tools."""
        if not self._is_open or (not after_calls and "tool_calls" in self.messages[-1]):
            self.messages.append({"role": "assistant", "content": None})
            self._is_open = True
        return self.messages[-1]

    def _say(self, text: str) -> None:
        message = self._assistant(after_calls=False)
        before = message["content"]
        message["content"] = f"{before}\n\n{text}" if before else text

    def _reason(self, text: str) -> None:
        if not text:
            return
        message = self._assistant(after_calls=False)
        before = message.get("reasoning_content")
        # Templates read it under either name.
        message["reasoning_content"] = message["reasoning"] = f"{before}\n\n{text}" if before else text

    def _call(self, item: FunctionCallItem | CustomCallItem, kind: str, arguments: str) -> None:
        name = self._toolbox.shown(item.name, item.namespace, kind)
        function = {"name": name, "arguments": arguments}
        calls = self._assistant(after_calls=True).setdefault("tool_calls", [])
        calls.append({"id": item.call_id, "type": "function", "function": function})

    def _skip(self, item: Any, where: str) -> None:
        kind = str(item.get("type"))[:64]
        if kind not in HOSTED_ITEMS:
            raise unsupported(f"an item of type {kind}", where)
        self.skipped.append(UnknownField(where, f"input.{kind}"))

    def _text(self, content: Contents, where: str) -> str:
        if isinstance(content, str):
            return content
        found = self._content(content, where)
        if not isinstance(found, str):
            raise unsupported("media in a message that is not a user's", where)
        return found

    def _content(self, content: Contents, where: str) -> str | list[dict[str, Any]]:
        """One string, or where there are media a list of parts."""
        if isinstance(content, str):
            return content
        parts = [*self._parts(content, where)]
        if all(isinstance(part, str) for part in parts):
            return "".join(map(str, parts))
        return [part if isinstance(part, dict) else {"type": "text", "text": part} for part in parts]

    def _parts(self, content: Sequence[ItemPart], where: str) -> Iterator[str | dict[str, Any]]:
        return (self._part(part, f"{where}.{index}") for index, part in enumerate(content))

    def _part(self, part: ItemPart, where: str) -> str | dict[str, Any]:
        if part.type in _TEXTS or part.type == "refusal":
            text = part.refusal if part.type == "refusal" else part.text
            if text is None:
                name = "refusal" if part.type == "refusal" else "text"
                raise RequestError(f"a part of type {part.type} needs `{name}`", param=f"{where}.{name}")
            return text
        if part.type == "input_image" and part.image_url is not None:
            return self.media.image(part.image_url, f"{where}.image_url")
        if part.type == "input_audio":
            return self._sound(part.input_audio, where)
        if part.type == "input_file" and (text := file_text(part)) is not None:
            return text
        raise unsupported(_KINDS.get(part.type, "images that are stored at OpenAI"), where)

    def _sound(self, given: Any, where: str) -> dict[str, Any]:
        data, format = (given.get("data"), given.get("format")) if isinstance(given, dict) else (None, None)
        if not isinstance(data, str) or not isinstance(format, str):
            raise RequestError("input_audio has `data` and `format`", param=f"{where}.input_audio")
        return self.media.audio(data, format, f"{where}.input_audio.data")
