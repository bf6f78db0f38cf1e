"""Reader of answers in which marks stand around reasoning and calls."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from engines.text.answers.base import before_newlines, busy_characters
from engines.text.answers.calling import FENCE, LONGEST_GAP, CallingReader, bare_start
from engines.text.answers.calls import WHOLE
from engines.text.answers.format import ArgumentsCall, Format, JsonCall, PythonCall, Reasoning
from engines.text.answers.functions import Functions
from engines.text.answers.marks import as_written


class MarkedReader(CallingReader):
    """``reasoning``: the prompt has opened it."""

    def __init__(
        self,
        format: Format,
        functions: Functions,
        *,
        reasoning: Reasoning | None = None,
        controls: Collection[str],
        hold: int = 0,
    ) -> None:
        super().__init__(format, functions, controls, hold)
        self._declared = format
        self._trims = "\n" in format.before_calls
        self._content_busy = busy_characters(
            self._marks.firsts | (frozenset("\n") if self._trims else frozenset())
        )
        self._reasoning_busy = busy_characters(self._marks.firsts | {"\n"})
        shapes = {*map(type, self._shapes)}
        brackets = ("{" if shapes & {JsonCall, ArgumentsCall} else "") + (
            "[" if shapes & {JsonCall, PythonCall} else ""
        )
        self._bare = brackets if format.bare and functions else ""
        self._is_fresh = True  # no content yet, or none since a mark
        self._is_behind_reasoning = False
        self._has_content = False
        self._has_bare_call = False
        self._inner: _InnerReader | None = None
        self._gap = ""
        if reasoning is not None:
            self._begin_reasoning()

    def _takes_controls(self) -> bool:
        return super()._takes_controls() or self._mode == self._suspect

    # Content

    def _begin_answer(self, text: str) -> str:
        self._go_on()
        return text

    def _go_on(self) -> None:
        """Go on with content, or with the section of calls."""
        self._is_fresh = True
        self._is_strict = self._is_listed = False
        self._fence = ""
        self._go(self._section if self._in_section else self._fresh)

    def _fresh(self, text: str) -> str:
        """Content that has not begun: white space alone is none if a mark follows."""
        body = text.lstrip()
        if not body:
            if not self._final and len(text) <= LONGEST_GAP:
                return self._wait(text)
            if not self._final:
                self._say(text)
            return ""
        found = self._marks.match(body)
        if found and self._applies(found[0]):
            return self._enter(found[0], body)
        if self._marks.may_become(body):
            if not self._final:
                return self._wait(text)
            if self.calls.count:
                return ""  # a mark that was cut off
        if self._bare and not self._has_content and (self._has_bare_call or not self.calls.count):
            start = bare_start(body, self._bare)
            if start is None and not self._final:
                return self._wait(text)
            if start is not None and start >= 0:
                start += len(text) - len(body)
                self._has_bare_call = True
                self._start_call(text[:start], is_strict=True)
                self._fence = FENCE if FENCE in text[:start] else ""
                return text[start:]
        self._begin_content()
        return text.lstrip("\n") if self._is_behind_reasoning else text

    def _begin_content(self) -> None:
        self._is_fresh = self._is_strict = self._is_listed = False
        self._has_content = True
        self._go(self._content, self._content_busy)

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
            return self._is_fresh or mark != as_written(mark)
        if kind == "reasoning end":
            return self._is_fresh and not self._has_content and not self.calls.count
        return self._owes_end if kind == "close" else True

    def _enter(self, mark: str, text: str) -> str:
        """Go on behind ``mark``, with which ``text`` begins."""
        kind, rest = self._kinds[mark], text[len(mark) :]
        match kind:
            case "call":
                self._start_call(mark)
            case "implied":
                self._start_call("")
                return text
            case "reasoning":
                self._begin_reasoning()
            case "section":
                self._start_section()
                self._go_on()
            case _:
                self._owes_end = False
                self._go_on()
        return rest

    # Reasoning

    def _begin_reasoning(self) -> None:
        self._go(self._lead, reasoning=True)

    def _lead(self, text: str) -> str:
        """Newlines at the beginning, which belong to the mark."""
        text = text.lstrip("\n")
        if text:
            self._go(self._reasoning, self._reasoning_busy, reasoning=True)
        return text

    def _reasoning(self, text: str) -> str:
        at = 0
        while found := self._marks.find(text, at):
            kind, start = self._kinds[found[0]], found.start()
            end = before_newlines(text, start)
            if kind in ("reasoning end", "silent"):
                self._think(text[:end])
                self._leave_reasoning()
                return text[found.end() :]
            if kind in ("call", "section"):
                self._think(text[:end])
                self._gap = text[end:start]
                self._inner = _InnerReader(self._declared, self.calls.functions, self._controls)
                self._raw = []
                self._go(self._suspect, reasoning=True)
                return text[start:]
            at = found.end()
        end = len(text) if self._final else before_newlines(text, self._marks.tail(text, at))
        self._think(text[:end])
        return self._wait(text[end:])

    def _leave_reasoning(self) -> None:
        self._is_behind_reasoning = True
        self._go_on()

    def _suspect(self, text: str) -> str:
        """A call in the reasoning: it is meant if it can be read and nothing else follows."""
        assert self._inner is not None
        self._raw.append(text)
        rest = self._inner.read(text)
        if rest is None:
            return ""
        text = "".join(self._raw)
        self._raw = [text[: len(text) - len(rest) - len(self._inner.stopped_at)]]
        if self._inner.stopped_at and self._inner.calls.count:
            self._go(self._verdict, reasoning=True)
        else:
            self._quote()
        return rest

    def _verdict(self, text: str) -> str:
        """Behind the end of reasoning that had a call: anything else now shows that none was meant."""
        if text.strip():
            self._quote()
            return text
        return ""

    def _quote(self) -> None:
        """The call is a part of the reasoning, which went on or ended behind it."""
        assert self._inner is not None
        self._think(self._gap + "".join(self._raw))
        self._raw = []
        if self._inner.stopped_at:
            self._leave_reasoning()
        else:
            self._go(self._reasoning, self._reasoning_busy, reasoning=True)

    def _end(self) -> None:
        if self._mode not in (self._suspect, self._verdict):
            super()._end()
            return
        assert self._inner is not None
        if self._inner.has_only_calls():
            self.calls.deltas += [
                replace(delta, index=delta.index + self.calls.count) for delta in self._inner.calls.deltas
            ]
        else:
            self._quote()


class _InnerReader(MarkedReader):
    """Reads what looks like a call in reasoning, up to where it is decided whether it is one.

    ``stopped_at`` is the end of the reasoning, if that was where it stopped.
    """

    def __init__(self, format: Format, functions: Functions, controls: Collection[str]) -> None:
        super().__init__(format, functions, controls=controls, hold=WHOLE)
        self.stopped_at = ""

    def read(self, text: str) -> str | None:
        """What is left of ``text`` once it is decided."""
        self._run(text)
        return self._held if self._mode == self._over else None

    def has_only_calls(self) -> bool:
        """Whether the answer, which ends here, has calls and nothing else."""
        if self._mode != self._over:
            self._final = True
            self._run("")
            self._end()
        return self.calls.count > 0 and (self._mode != self._over or bool(self.stopped_at))

    def _begin_content(self) -> None:
        self._go(self._over)

    def _applies(self, mark: str) -> bool:
        return self._kinds[mark] in ("call", "implied", "section", "reasoning end")

    def _enter(self, mark: str, text: str) -> str:
        if self._kinds[mark] != "reasoning end":
            return super()._enter(mark, text)
        self.stopped_at = mark
        self._go(self._over)
        return text[len(mark) :]

    def _over(self, text: str) -> str:
        return self._wait(text)
