"""Reader of answers in which marks stand around reasoning and calls."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from engines.text.answers.base import BaseReader, before_newlines, busy_characters
from engines.text.answers.calls import WHOLE
from engines.text.answers.format import (
    CallShape,
    Format,
    JsonCall,
    NamedCall,
    NotationCall,
    PythonCall,
    Reasoning,
    TaggedCall,
)
from engines.text.answers.functions import Functions
from engines.text.answers.json_call import JsonCallReader
from engines.text.answers.marks import as_written, marks
from engines.text.answers.named_call import NamedCallReader
from engines.text.answers.notation_call import NotationCallReader
from engines.text.answers.python_call import PythonCallReader
from engines.text.answers.shape import ShapeReader, begins
from engines.text.answers.tagged_call import TaggedCallReader

# White space alone is no content in front of a mark or at the end; what is longer is.
_LONGEST_GAP = 256


class MarkedReader(BaseReader):
    """``reasoning``: the prompt has opened it. ``is_inner``: reads what looks like a call in reasoning, up to
    where that is decided."""

    def __init__(
        self,
        format: Format,
        functions: Functions,
        *,
        reasoning: Reasoning | None = None,
        controls: Collection[str],
        hold: int = 0,
        is_inner: bool = False,
    ) -> None:
        super().__init__(format, functions, controls, hold)
        self._declared = format
        format = self._format
        self._kinds = _kinds(format, with_calls=bool(functions))
        self._marks = marks(*self._kinds)
        self._shapes = (format.call, *format.also)
        self._trims = "\n" in format.before_calls
        firsts = self._marks.firsts | ({"\n"} if self._trims else frozenset())
        self._content_busy = busy_characters(firsts)
        self._is_fresh = True  # no content yet, or none since a mark
        self._is_behind_reasoning = False
        self._has_content = False
        self._is_inner = is_inner
        self.stopped_at = ""  # what made an inner reader stop
        self._raw: list[str] = []  # of a call that is not announced
        self._is_strict = False
        self._is_listed = False
        self._owes_end = False
        self._in_section = False
        self._noise: list[str] = []
        self._calls_before = 0
        self._shape: ShapeReader | None = None
        self._inner: MarkedReader | None = None
        self._gap = ""
        if reasoning is not None:
            self._begin_reasoning()

    @property
    def in_reasoning(self) -> bool:
        return self._mode in (self._reasoning, self._lead, self._suspect, self._verdict)

    def _takes_controls(self) -> bool:
        return self._mode in (self._call, self._suspect)

    # Content

    def _begin_answer(self, text: str) -> str:
        self._go_on()
        return text

    def _go_on(self) -> None:
        """Go on with content, or with the section of calls."""
        self._is_fresh = True
        self._busy = None
        self._is_strict = self._is_listed = False
        self._mode = self._section if self._in_section else self._fresh

    def _fresh(self, text: str) -> str:
        """Content that has not begun: white space alone is none if a mark follows."""
        body = text.lstrip()
        if not body:
            if self._final:
                return ""
            if len(text) <= _LONGEST_GAP:
                return self._wait(text)
            self._say(text)
            return ""
        found = self._marks.match(body)
        if found and self._applies(found[0]):
            return self._enter(found[0], body)
        if not self._final and self._marks.may_become(body):
            return self._wait(text)
        if self._may_be_bare(body[0]):
            self._is_strict = True
            self._raw = []
            self._mode = self._begin_call
            return text
        if self._is_inner:
            self._stop("")
            return text
        self._begin_content()
        return text.lstrip("\n") if self._is_behind_reasoning else text

    def _begin_content(self) -> None:
        self._is_fresh = self._is_strict = self._is_listed = False
        self._has_content = True
        self._busy = self._content_busy
        self._is_quiet_reasoning = False
        self._mode = self._content

    def _may_be_bare(self, first: str) -> bool:
        if not self._format.bare or self._has_content or self.calls.count or not self.calls.functions:
            return False
        kinds = tuple(map(type, self._shapes))
        return (first == "{" and JsonCall in kinds) or (
            first == "[" and (PythonCall in kinds or JsonCall in kinds)
        )

    def _content(self, text: str) -> str:
        at = 0
        while found := self._marks.find(text, at):
            if self._applies(found[0]):
                start = found.start()
                self._say(text[: before_newlines(text, start) if self._trims else start])
                return self._enter(found[0], text[start:])
            at = found.end()
        end = len(text)
        if not self._final:
            end = self._marks.tail(text, at)
            end = before_newlines(text, end) if self._trims else end
        self._say(text[:end])
        return self._wait(text[end:])

    def _applies(self, mark: str) -> bool:
        """Whether ``mark`` means something where the reader is."""
        kind = self._kinds[mark]
        if kind == "reasoning":
            return not self._is_inner and (self._is_fresh or mark != as_written(mark))
        if kind == "reasoning end":
            return self._is_inner or (self._is_fresh and not self._has_content and not self.calls.count)
        return self._owes_end if kind == "close" else True

    def _enter(self, mark: str, text: str) -> str:
        """Go on behind ``mark``, with which ``text`` begins."""
        kind, rest = self._kinds[mark], text[len(mark) :]
        if kind == "reasoning end" and self._is_inner:
            self._stop(mark)
            return rest
        if kind == "call":
            return self._start_call(mark, rest)
        if kind == "implied":
            return self._start_call("", text)
        if kind == "section":
            self._in_section = True
            self._noise, self._calls_before = [], self.calls.count
        elif kind == "reasoning":
            self._begin_reasoning()
            return rest
        elif kind == "close":
            self._owes_end = False
        self._go_on()
        return rest

    # Calls

    def _start_call(self, mark: str, text: str) -> str:
        self._raw = [mark]
        self._busy = None
        self._mode = self._begin_call
        return text

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
        self._mode = self._call
        return body

    def _shape_of(self, first: str) -> CallShape | None:
        """The shape of a call that begins with the character ``first``."""
        for shape in self._shapes:
            match shape:
                case JsonCall():
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
            self._mode = self._behind_call
        elif self._shape.is_broken:
            return self._break(rest)
        return rest

    def _break(self, rest: str) -> str:
        """What was read is no call: it is content, if nothing of it was passed on."""
        raw = "".join(self._raw)
        if self._mode == self._call:
            raw = raw[: len(raw) - len(rest)]
        if self.calls.is_announced:
            self.calls.drop()
            self._owes_end = True
        else:
            self._say(raw)
            if self._is_inner:
                self._stop("")
                return rest
        self._raw.clear()
        if self._in_section:
            self._go_on()
        else:
            self._begin_content()
        return rest

    def _behind_call(self, text: str) -> str:
        body = text.lstrip()
        if not body:
            if len(text) <= _LONGEST_GAP:
                return self._wait("" if self._final else text)
            self._go_on()
            return text
        after = self._shape_after()
        for mark in (after, self._format.call_end):
            begun = begins(body, mark) if mark else False
            if begun is None and not self._final:
                return self._wait(text)
            if begun and mark == after:
                return body[len(mark) :]
            if begun:
                self._go_on()
                return body[len(mark) :]
        if self._is_listed and body[0] in ",]":
            self._is_listed = body[0] == ","
            if self._is_listed:
                self._raw = [","]
                self._mode = self._begin_call
            return body[1:]
        if isinstance(self._shape, JsonCallReader):
            next_one = body.lstrip(";, \t\r\n")
            if not next_one and not self._final and len(text) <= _LONGEST_GAP:
                return self._wait(text)
            if next_one.startswith("{"):
                self._raw = [text[: len(text) - len(next_one)]]
                self._mode = self._begin_call
                return next_one
            if body[0] in "}]" and self._format.call_end and not self._is_strict:
                return body[1:]  # one too many
        self._go_on()
        return text

    def _shape_after(self) -> str:
        shape = self._format.call
        return shape.after_arguments.strip() if isinstance(shape, NamedCall) else ""

    def _section(self, text: str) -> str:
        """Between calls of a section, where no text belongs."""
        while found := self._marks.find(text):
            kind = self._kinds[found[0]]
            self._noise.append(text[: found.start()])
            if kind in ("call", "implied"):
                return self._enter(found[0], text[found.start() :])
            text = text[found.end() :]
            if found[0] == self._format.section_end:
                self._leave_section()
                return text
            self._noise.append(found[0])
        end = len(text) if self._final else self._marks.tail(text)
        self._noise.append(text[:end])
        return self._wait(text[end:])

    def _leave_section(self) -> None:
        noise = "".join(self._noise)
        if noise.strip() and self.calls.count == self._calls_before:
            self._say(noise)
        self._in_section = False
        self._go_on()

    # Reasoning

    def _begin_reasoning(self) -> None:
        self._busy = None
        self._mode = self._lead

    def _lead(self, text: str) -> str:
        """Newlines at the beginning, which belong to the mark."""
        text = text.lstrip("\n")
        if text:
            self._mode = self._reasoning
            self._busy = busy_characters(self._marks.firsts | {"\n"})
            self._is_quiet_reasoning = True
        return text

    def _reasoning(self, text: str) -> str:
        at = 0
        while found := self._marks.find(text, at):
            kind, start = self._kinds[found[0]], found.start()
            end = before_newlines(text, start)
            if kind in ("reasoning end", "silent"):
                self._think(text[:end])
                self._is_behind_reasoning = True
                self._go_on()
                return text[found.end() :]
            if kind in ("call", "section"):
                self._think(text[:end])
                return self._suspect_call(text[end:start], text[start:])
            at = found.end()
        end = len(text) if self._final else before_newlines(text, self._marks.tail(text, at))
        self._think(text[:end])
        return self._wait(text[end:])

    def _suspect_call(self, gap: str, text: str) -> str:
        """A call that is not meant as one, or one before which the reasoning was not ended."""
        self._gap = gap
        self._inner = MarkedReader(
            self._declared, self.calls.functions, controls=self._controls, hold=WHOLE, is_inner=True
        )
        self._raw = []
        self._busy = None
        self._mode = self._suspect
        return text

    def _suspect(self, text: str) -> str:
        """It is meant if it can be read and nothing else follows; read on until that is known."""
        inner = self._inner
        assert inner is not None
        self._raw.append(text)
        inner._run(text)
        if inner._mode != inner._over:
            return ""
        rest, inner._held = inner._held, ""
        text = "".join(self._raw)
        self._raw = [text[: len(text) - len(rest) - len(inner.stopped_at)]]
        if inner.stopped_at and inner.calls.count:
            self._mode = self._verdict
        else:
            self._quote(at_end=bool(inner.stopped_at))
        return rest

    def _verdict(self, text: str) -> str:
        """Behind the end of the reasoning in which there was a call: anything now shows that it was not meant."""
        if text.strip():
            self._quote(at_end=True)
            return text
        return ""

    def _quote(self, *, at_end: bool) -> None:
        """The call is a part of the reasoning, which went on or ended behind it."""
        self._think(as_written(self._gap + "".join(self._raw)))
        self._raw = []
        self._inner = None
        if at_end:
            self._is_behind_reasoning = True
            self._go_on()
        else:
            self._begin_reasoning()
            self._mode = self._reasoning
            self._busy = busy_characters(self._marks.firsts | {"\n"})
            self._is_quiet_reasoning = True

    def _stop(self, mark: str) -> None:
        self.stopped_at = mark
        self._mode = self._over

    def _over(self, text: str) -> str:
        return self._wait(text)

    def _end(self) -> None:
        if self._mode == self._call:
            self._run(self._call(""))
        if self._mode in (self._suspect, self._verdict):
            self._end_suspicion()
        elif self._in_section and self._mode == self._section:
            self._leave_section()
        elif self._is_strict and not self.calls.is_announced and self._mode in (self._call, self._begin_call):
            self._say("".join(self._raw))

    def _end_suspicion(self) -> None:
        inner = self._inner
        assert inner is not None
        if self._mode == self._suspect:
            inner.finish_calls()
        if not inner.calls.count or inner._content_parts:
            self._quote(at_end=False)
            return
        for delta in inner.calls.deltas:
            self.calls.deltas.append(replace(delta, index=delta.index + self.calls.count))
        self.calls.count += inner.calls.count

    def finish_calls(self) -> None:
        """The answer ended: read what is left, keeping the deltas."""
        self._final = True
        self._run("")
        self._end()


def _kinds(format: Format, *, with_calls: bool) -> dict[str, str]:
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
