"""Reader of answers that are messages on channels, as gpt-oss writes them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from engines.text.answers.base import BaseReader, busy_characters
from engines.text.answers.format import ChannelCall, Format
from engines.text.answers.functions import Functions
from engines.text.answers.json_text import JsonValue
from engines.text.answers.marks import as_written, marks, without_controls

_RECIPIENT = re.compile(r"\bto=([^\s\ufdd0]+)")
_CHANNEL = re.compile(r"[\w]+")
# A header has a role, a recipient, a channel and a content type.
_LONGEST_HEADER = 1024
_MYSELF = "assistant"
_LONGEST_BEGINNING = 32


class ChannelReader(BaseReader):
    """``prompt`` is what the answer's first message begins with."""

    def __init__(
        self,
        format: Format,
        functions: Functions,
        *,
        prompt: str = "",
        controls: Collection[str],
        hold: int = 0,
    ) -> None:
        super().__init__(format, functions, controls, hold)
        shape = self._format.call
        assert isinstance(shape, ChannelCall)
        self._shape = shape
        self._ends = marks(shape.start, *shape.ends)
        self._header_ends = marks(shape.start, shape.message, *shape.ends)
        self._body_ends = marks(shape.start, shape.channel, *shape.ends)
        self._header_begins = (_MYSELF, "to=", *(mark for mark in self._format.tokens))
        self._body_busy = busy_characters(self._body_ends.firsts)
        self._header: list[str] = []
        self._header_size = 0
        self._value = JsonValue(self.calls.write)
        self._begin_header()
        if prompt:
            self._run(self._spelled_prompt(prompt))
            self._take()

    def _spelled_prompt(self, prompt: str) -> str:
        start = as_written(self._shape.start)
        at = prompt.rfind(start)
        names = [name for name in self._format.tokens if name != as_written(name)]
        text = prompt[at + len(start) :] if at >= 0 else ""
        for name in names:
            text = text.replace(as_written(name), name)
        return text

    def _takes_controls(self) -> bool:
        return self._mode == self._arguments

    def _begin_answer(self, text: str) -> str:
        self._begin_header()
        return text

    def _begin_header(self) -> None:
        self._header.clear()
        self._header_size = 0
        # Neither headers nor reasoning are bound by the form that an answer must have.
        self._go(self._read_header, reasoning=True)

    def _read_header(self, text: str) -> str:
        found = self._header_ends.find(text)
        end = found.start() if found else len(text) if self._final else self._header_ends.tail(text)
        self._header.append(text[:end])
        self._header_size += end
        if self._header_size > _LONGEST_HEADER or not self._may_be_header():
            return self._give_up() + text[end:]
        if found is None:
            return self._wait(text[end:])
        header = "".join(self._header)
        if found[0] == self._shape.message:
            self._begin_body(header)
        else:
            self._keep_garbage(header)
            self._begin_header()
        return text[found.end() :]

    def _begin_body(self, header: str) -> None:
        recipient = _RECIPIENT.search(header)
        name = recipient[1] if recipient else ""
        if name and name != _MYSELF:
            self._value = JsonValue(self.calls.write)
            is_function = self.calls.functions and self.calls.open(name)
            self._go(self._begin_arguments if is_function else self._elsewhere)
        elif self._channel(header) == self._shape.reasoning_channel:
            self._go(self._reasoning, self._body_busy, reasoning=True)
        else:
            self._go(self._content, self._body_busy)

    def _channel(self, header: str) -> str:
        found = _CHANNEL.match(header.rpartition(self._shape.channel)[2].lstrip())
        return found[0] if found and self._shape.channel in header else ""

    def _may_be_header(self) -> bool:
        """Whether the header begins as one does: with a role, a recipient, or a control token."""
        start = "".join(self._header[:_LONGEST_BEGINNING]).lstrip()
        return not start or any(
            start.startswith(begin) or begin.startswith(start) for begin in self._header_begins
        )

    def _give_up(self) -> str:
        """What is no header, or too long for one, is content; what is left of it."""
        header = "".join(self._header)
        taken = _LONGEST_HEADER if self._may_be_header() else 0
        self._say(header[:taken])
        self._go(self._content, self._body_busy)
        return header[taken:]

    def _keep_garbage(self, header: str) -> None:
        """A header without a message: what it says may have been meant as anything."""
        channel = self._channel(header)
        text = without_controls(header).strip()
        if text not in ("", _MYSELF, channel) and not _RECIPIENT.search(header):
            self._think(text.removeprefix(channel))

    def _content(self, text: str) -> str:
        return self._read_body(text, self._say)

    def _reasoning(self, text: str) -> str:
        return self._read_body(text, self._think)

    def _elsewhere(self, text: str) -> str:
        """A message to a tool that is none of the client's."""
        return self._read_body(text, len)

    def _read_body(self, text: str, take: Callable[[str], object]) -> str:
        found = self._body_ends.find(text)
        if found is None:
            end = len(text) if self._final else self._body_ends.tail(text)
            take(text[:end])
            return self._wait(text[end:])
        take(text[: found.start()])
        self._begin_header()
        return text[found.start() if found[0] == self._shape.channel else found.end() :]

    def _begin_arguments(self, text: str) -> str:
        text = text.lstrip()
        if not text:
            return ""
        found = self._ends.match(text)
        if found:
            self.calls.write("{}")
            self.calls.close()
            self._begin_header()
            return text[found.end() :]
        if self._ends.may_become(text) and not self._final:
            return self._wait(text)
        if text[0] != "{":
            self.calls.drop()
            self._go(self._content, self._body_busy)
            return text
        self._go(self._arguments)
        return text

    def _arguments(self, text: str) -> str:
        rest = self._value.feed(text)
        if self._value.is_done:
            self.calls.close()
            self._go(self._elsewhere)
        elif self._value.is_broken:
            self.calls.drop()
            self._go(self._content, self._body_busy)
        return rest

    def _end(self) -> None:
        if self._mode == self._read_header:
            header = "".join(self._header)
            if self._channel(header) == "final":
                text = header.rpartition(self._shape.channel)[2]
                self._say(text.lstrip().removeprefix("final"))
            elif not header.lstrip().startswith(self._header_begins):
                self._say(header)
