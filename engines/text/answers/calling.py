"""The part of a reader that reads calls: their marks, sections of them, and what is no call after all."""

from __future__ import annotations

from collections.abc import Collection

from engines.text.answers.base import BaseReader
from engines.text.answers.format import (
    ArgumentsCall,
    CallShape,
    Format,
    JsonCall,
    NamedCall,
    NotationCall,
    PythonCall,
    TaggedCall,
)
from engines.text.answers.functions import Functions
from engines.text.answers.json_call import ArgumentsCallReader, JsonCallReader
from engines.text.answers.marks import marks
from engines.text.answers.named_call import NamedCallReader
from engines.text.answers.notation_call import NotationCallReader
from engines.text.answers.python_call import PythonCallReader
from engines.text.answers.shape import ShapeReader, begins
from engines.text.answers.tagged_call import TaggedCallReader

# White space alone is no content in front of a mark or at the end; what is longer is.
LONGEST_GAP = 256
# Around JSON, as small models write it.
FENCE = "```"
_FENCES = (FENCE + "json", FENCE)
_SEPARATORS = ";, \t\r\n"


class CallingReader(BaseReader):
    """Reads from the mark of a call on, and goes on with content or a section of calls."""

    def __init__(self, format: Format, functions: Functions, controls: Collection[str], hold: int) -> None:
        super().__init__(format, functions, controls, hold)
        self._kinds = kinds_of(self._format, with_calls=bool(functions))
        self._marks = marks(*self._kinds)
        self._shapes = (self._format.call, *self._format.also)
        self._shape: ShapeReader | None = None
        self._raw: list[str] = []  # of a call that is not announced
        self._is_strict = False  # nothing but its form shows that it is a call
        self._is_listed = False
        self._fence = ""  # that is behind the call
        self._owes_end = False  # the mark behind a call that broke
        self._in_section = False
        self._noise: list[str] = []
        self._calls_before = 0

    def _go_on(self) -> None:
        """Go on behind a mark."""
        raise NotImplementedError

    def _begin_content(self) -> None:
        raise NotImplementedError

    def _takes_controls(self) -> bool:
        return self._mode == self._call

    def _start_section(self) -> None:
        self._in_section = True
        self._noise, self._calls_before = [], self.calls.count

    def _start_call(self, mark: str, *, is_strict: bool = False) -> None:
        self._raw = [mark]
        self._is_strict = is_strict
        self._go(self._begin_call)

    def _begin_call(self, text: str) -> str:
        body = text.lstrip()
        self._raw.append(text[: len(text) - len(body)])
        if not body:
            return ""
        shape = self._shape_of(body[0])
        if shape is None and body[0] == "[" and not self._is_listed:
            self._is_listed = True
            self._raw.append("[")
            return body[1:]
        if shape is None:
            return self._break(body)
        self._shape = self._reader_of(shape)
        self._go(self._call)
        return body

    def _shape_of(self, first: str) -> CallShape | None:
        """The shape of a call that begins with the character ``first``."""
        for shape in self._shapes:
            match shape:
                case JsonCall() | ArgumentsCall():
                    fits = first == "{"
                case PythonCall():
                    fits = self._is_listed and (first.isalpha() or first == "_")
                case NotationCall():
                    fits = first == shape.before_name[0]
                case TaggedCall(before_name=before) if before:
                    fits = first == before[0]
                case _:
                    fits = first not in "{[<"
            if fits:
                return shape
        return None

    def _reader_of(self, shape: CallShape) -> ShapeReader:
        match shape:
            case ArgumentsCall():
                return ArgumentsCallReader(shape, self.calls)
            case JsonCall():
                return JsonCallReader(shape, self.calls, is_strict=self._is_strict)
            case NamedCall():
                return NamedCallReader(shape, self.calls, self._format.call_end)
            case TaggedCall():
                return TaggedCallReader(shape, self.calls, self._format)
            case NotationCall():
                return NotationCallReader(shape, self.calls)
            case _:
                return PythonCallReader(self.calls)

    def _call(self, text: str) -> str:
        assert self._shape is not None
        if not self.calls.is_announced:
            self._raw.append(text)
        rest = self._shape.feed(text, self._final)
        if self._shape.is_done:
            self._raw.clear()
            self._go(self._behind_call)
        elif self._shape.is_broken:
            return self._break(rest)
        return rest

    def _break(self, rest: str) -> str:
        """What was read is no call: it is content, if nothing of it was passed on."""
        raw = "".join(self._raw)
        if self._mode == self._call:
            raw = raw[: len(raw) - len(rest)]
        self._raw.clear()
        if self.calls.is_announced:
            self.calls.drop()
            self._owes_end = True
        else:
            self._say(raw)
        if self._in_section:
            self._go_on()
        else:
            self._begin_content()
        return rest

    def _behind_call(self, text: str) -> str:
        body = text.lstrip()
        if not body:
            if len(text) <= LONGEST_GAP:
                return self._wait("" if self._final else text)
            self._go_on()
            return text
        shape = self._format.call
        after = shape.after_arguments.strip() if isinstance(shape, NamedCall) else ""
        for mark in (after, self._fence, self._format.call_end):
            begun = begins(body, mark) if mark else False
            if begun is None and not self._final:
                return self._wait(text)
            if begun:
                if mark != after:
                    self._go_on()
                return body[len(mark) :]
        if self._is_listed and body[0] in ",]":
            if body[0] == ",":
                self._start_call(",", is_strict=self._is_strict)
            else:
                self._is_listed = False
            return body[1:]
        if isinstance(self._shape, JsonCallReader):
            return self._behind_json(text, body)
        self._go_on()
        return text

    def _behind_json(self, text: str, body: str) -> str:
        """Another object may follow with no mark of its own, or a bracket too many."""
        other = body.lstrip(_SEPARATORS)
        if not other and not self._final and len(text) <= LONGEST_GAP:
            return self._wait(text)
        if other.startswith("{"):
            self._start_call(text[: len(text) - len(other)], is_strict=self._is_strict)
            return other
        if body[0] in "}]" and self._format.call_end and not self._is_strict:
            return body[1:]
        self._go_on()
        return text

    def _section(self, text: str) -> str:
        """Between calls of a section, where no text belongs."""
        while found := self._marks.find(text):
            kind = self._kinds[found[0]]
            self._noise.append(text[: found.start()])
            if kind in ("call", "implied"):
                self._start_call(found[0] if kind == "call" else "")
                return text[found.end() if kind == "call" else found.start() :]
            text = text[found.end() :]
            if found[0] == self._format.section_end:
                self._leave_section()
                return text
            self._noise.append(found[0])
        end = len(text) if self._final else self._marks.tail(text)
        self._noise.append(text[:end])
        return self._wait(text[end:])

    def _leave_section(self) -> None:
        """What stood in a section is content if there was no call."""
        noise = "".join(self._noise)
        if noise.strip() and self.calls.count == self._calls_before:
            self._say(noise)
        self._in_section = False
        self._go_on()

    def _end(self) -> None:
        if self._mode == self._call:
            self._run(self._call(""))
        if self._mode == self._section:
            self._leave_section()
        elif self._is_strict and self._mode in (self._call, self._begin_call) and not self.calls.is_announced:
            self._say("".join(self._raw))


def bare_start(body: str, brackets: str) -> int | None:
    """Where a call without a mark begins in ``body``: with one of ``brackets``, perhaps in a fence.

    -1 if there is none, None if that is yet to be seen.
    """
    fence = next((each for each in _FENCES if body.startswith(each)), "")
    rest = body[len(fence) :].lstrip()
    if rest and rest[0] in brackets:
        return len(body) - len(rest)
    may_be_fence = _FENCES[0].startswith(body) or (bool(fence) and not rest and len(body) <= LONGEST_GAP)
    return None if may_be_fence else -1


def kinds_of(format: Format, *, with_calls: bool) -> dict[str, str]:
    """What the marks of ``format`` mean."""
    kinds: dict[str, str] = {}
    for reasoning in format.reasonings:
        kinds[reasoning.begin] = "reasoning"
        kinds[reasoning.end] = "reasoning end"
    kinds |= dict.fromkeys(format.silent, "silent")
    if with_calls:
        kinds |= {format.call_end: "close", format.section_end: "close"}
        shape = format.call
        if isinstance(shape, TaggedCall) and (format.bare or not format.call_begin):
            kinds[shape.before_name] = "implied"
        kinds |= {format.section_begin: "section", format.call_begin: "call"}
    kinds.pop("", None)
    return kinds
