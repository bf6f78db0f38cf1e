"""Reader of calls whose parameters stand between tags."""

from __future__ import annotations

import json
import re

from engines.text.answers.calls import CallDeltas
from engines.text.answers.format import Format, TaggedCall
from engines.text.answers.marks import as_written, marks
from engines.text.answers.shape import ShapeReader, begins
from engines.text.answers.values import RawValue

_ATTRIBUTE = re.compile(r'([\w.-]+)="([^"]*)"')
_ESCAPES = (("&quot;", '"'), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&"))
_LONGEST_HEAD = 1024
# White space between two tags.
_LONGEST_GAP = 64
_NO_STRING = frozenset({"object", "array", "number", "integer", "boolean", "null"})


class TaggedCallReader(ShapeReader):
    """The tags around a value are found by what follows them, as the value may have such text too."""

    def __init__(self, shape: TaggedCall, calls: CallDeltas, format: Format) -> None:
        super().__init__(calls)
        self._shape = shape
        end = shape.after_parameters
        self._name_ends = marks(
            *([shape.after_name] if shape.after_name else ["\n", shape.before_key, format.call_end])
        )
        self._key_ends = marks(shape.after_key)
        self._tags = marks(shape.before_key, end or format.call_end, format.call_end, format.section_end)
        next_call = format.call_begin or shape.before_name
        self._behind_call = marks(format.call_end if end else "", format.section_end, next_call)
        line = "\n" if shape.lines else ""
        # Values whose own end is missing end where something else begins, at the beginning of a line.
        self._missing_end = (line + end) if end else format.call_end
        self._missing_ends = [self._missing_end, *([line + shape.before_key] if line else [])]
        self._value_ends = marks(shape.after_value, line + shape.after_value, *self._missing_ends)
        self._value = RawValue(self._write, frozenset())
        self._is_first = True

    def _begin(self, text: str) -> str:
        text = text.lstrip()
        begun = begins(text, self._shape.before_name)
        if begun is None:
            return self._wait(text)
        self._step = self._read_name
        return text[len(self._shape.before_name) :] if begun else self._break(text)

    def _read_name(self, text: str) -> str:
        found = self._name_ends.find(text)
        if found is None:
            return self._break(text) if len(text) > _LONGEST_HEAD else self._wait(text)
        head = as_written(text[: found.start()])
        name = _attributes(head).get(self._shape.name_attribute, "") if self._shape.name_attribute else head
        if not self._open(name.strip()):
            return self._break(text)
        rest = text[found.end() :] if self._shape.after_name else text[found.start() :]
        if self._shape.name_attribute and head.endswith("/"):
            self._calls.write("{}")
            return self._finish(rest)
        self._step = self._between
        return rest

    def _between(self, text: str) -> str:
        text = text.lstrip()
        found = self._tags.match(text)
        if found is None:
            return self._wait(text) if self._tags.may_become(text) else self._break(text)
        if found[0] == self._shape.before_key:
            self._step = self._read_key
            return text[found.end() :]
        self._write("{}" if self._is_first else "}")
        return self._finish(text[found.end() :] if found[0] == self._shape.after_parameters else text)

    def _read_key(self, text: str) -> str:
        found = self._key_ends.find(text)
        if found is None:
            return self._break(text) if len(text) > _LONGEST_HEAD else self._wait(text)
        head, rest = as_written(text[: found.start()]), text[found.end() :]
        attributes = _attributes(head) if self._shape.key_attribute else {}
        key = attributes.get(self._shape.key_attribute) if self._shape.key_attribute else head.strip()
        if not key:
            return self._break(text)
        self._later(("{" if self._is_first else ", ") + json.dumps(key, ensure_ascii=False) + ": ")
        self._is_first = False
        self._value = RawValue(self._write, self._types(key, attributes.get(self._shape.type_attribute)))
        self._step = self._before_value if self._shape.before_value else self._begin_value
        return rest

    def _types(self, key: str, given: str | None) -> frozenset[str]:
        if given in ("true", "false"):
            return frozenset({"string"}) if given == "true" else _NO_STRING
        return frozenset({given}) if given else self._calls.functions.types(self._calls.name, key)

    def _before_value(self, text: str) -> str:
        text = text.lstrip()
        begun = begins(text, self._shape.before_value)
        if begun is None:
            return self._wait(text)
        self._step = self._begin_value
        return text[len(self._shape.before_value) :] if begun else self._break(text)

    def _begin_value(self, text: str) -> str:
        self._step = self._read_value
        return text[1:] if self._shape.lines and text[0] == "\n" else text

    def _read_value(self, text: str) -> str:
        at = 0
        while found := self._value_ends.find(text, at):
            ends = self._is_end(found[0], text[found.end() :])
            if ends:
                self._take(text[: found.start()])
                self._value.end()
                self._step = self._between
                is_own = found[0].endswith(self._shape.after_value)
                return text[found.end() if is_own else found.start() :]
            if ends is None:
                self._take(text[: found.start()])
                return self._wait(text[found.start() :])
            at = found.start() + 1
        end = self._value_ends.tail(text, at)
        self._take(text[:end])
        return self._wait(text[end:])

    def _is_end(self, mark: str, rest: str) -> bool | None:
        """Whether ``mark``, with ``rest`` behind it, ends the value; None if that is yet to be seen."""
        if mark.endswith(self._shape.before_key):
            return True
        followers = self._behind_call if mark == self._missing_end else self._tags
        body = rest.lstrip()
        if followers.match(body):
            return True
        if self._final:
            return not body
        return None if followers.may_become(body) and len(rest) - len(body) < _LONGEST_GAP else False

    def _take(self, text: str) -> None:
        if text:
            self._value.feed(text)


def _attributes(head: str) -> dict[str, str]:
    found = {}
    for name, value in _ATTRIBUTE.findall(head):
        for escape, char in _ESCAPES:
            value = value.replace(escape, char)
        found[name] = value
    return found
