"""Grammar of an answer: the calls that it may or must make, and the form of its content."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engines.base import Structure
from engines.text.answer_grammar.calls import CallRules
from engines.text.answer_grammar.lark import Lark, TokenOf, choice, literal
from engines.text.answer_grammar.values import Schema
from engines.text.answers.format import ChannelCall, Format, JsonCall, PythonCall
from engines.text.grammar import gbnf
from engines.text.grammar.sources import json_in_lark

# Calls in one answer, which a small model may never end.
MOST_CALLS = 32

_SLASH = re.compile(r"\\.|/|\n", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked of an answer: that it calls some of ``functions`` (``must_call``), or may do so, or has
    ``content`` of a certain structure.

    ``opening`` is a mark that may come first: of reasoning, which comes between it and the rest, and is no
    part of the grammar unless ``closing`` is the mark at its end. A ``closing`` without an ``opening`` ends
    what the prompt has begun.
    """

    functions: Sequence[Mapping[str, Any]] = ()
    must_call: bool = False
    most_calls: int = MOST_CALLS
    content: Structure | None = None
    opening: str = ""
    closing: str = ""


def write_grammar(format: Format, demand: Demand, token_of: TokenOf) -> str:
    """The grammar, in Lark, of an answer in ``format`` that does what ``demand`` says.

    Tokens that ``format`` names stand for the marks, where the vocabulary has them.
    """
    return _Answer(format, demand, Lark(format.tokens, token_of)).source()


class _Answer:
    def __init__(self, format: Format, demand: Demand, lark: Lark) -> None:
        self._format, self._demand, self._lark = format, demand, lark
        self._gap = lark.regex("[ \\n]{1,2}") + "?"

    def source(self) -> str:
        return self._lark.source(f"{self._reasoning()} {self._body()}")

    def _reasoning(self) -> str:
        """What may stand in front of the answer proper."""
        demand, text = self._demand, self._lark.text
        inner = self._lark.until(demand.closing) if demand.closing else ""
        gap, begin = self._gap, text(demand.opening)
        if isinstance(self._format.call, ChannelCall):
            gap, inner = "", f"{inner} {text(f'{self._format.call.start}assistant')}"
        if begin:
            return f"({begin} {inner})? {gap}"
        return f"{inner} {gap}" if demand.closing else gap

    def _body(self) -> str:
        demand = self._demand
        if not demand.functions:
            assert demand.content is not None
            return self._framed(content_rule(demand.content))
        if demand.must_call:
            return f"{self._empty_content()} {self._calls()}"
        if demand.content is not None:
            content = self._framed(content_rule(demand.content))
            return choice([f"{self._empty_content()} {self._calls()}", content])
        return self._free()

    # -- calls -------------------------------------------------------------------------------------

    def _calls(self, *, begun: bool = False) -> str:
        """All calls of the answer; ``begun``: the first mark is there."""
        form, text = self._format, self._lark.text
        begin, end = self._marks()
        section = text(form.section_begin)
        first = "" if begun and not section else text(begin)
        if section:
            section = self._gap if begun else f"{section} {self._gap}"
        call, more = self._call(), max(0, min(self._demand.most_calls, MOST_CALLS) - 1)
        comma = f'{text(form.between_calls.rstrip() or ",")} " "?'
        if isinstance(form.call, JsonCall) and form.call.listed:
            return f'{first} {self._gap} "[" {call} {_up_to(more, f"{comma} {call}")} "]"'
        if isinstance(form.call, PythonCall):
            return f'"[" {call} {_up_to(more, f""" "," " "? {call}""")} "]"'
        if isinstance(form.call, ChannelCall):
            return call
        inner = self._inner(call)
        between = self._between()
        follow = _up_to(more, f"{between} {text(begin)} {inner} {text(end)}")
        close = f"{self._gap} {text(form.section_end)}" if form.section_end else ""
        tail = f"({text(form.silent[2])})?" if form.silent else ""
        return f"{section} {first} {inner} {text(end)} {follow} {close} {tail}"

    def _inner(self, call: str) -> str:
        """A call, with the newlines that may be around it within its marks."""
        spaced = isinstance(self._format.call, JsonCall) and self._marks()[1]
        return f"{self._gap} {call} {self._gap}" if spaced else call

    def _between(self) -> str:
        between = self._format.between_calls
        return f"{literal(between)}?" if between and between.isspace() else self._lark.text(between)

    def _marks(self) -> tuple[str, str]:
        """Begin and end of a call. Llama's may be missing, and mostly are."""
        form = self._format
        if form.bare and (isinstance(form.call, PythonCall) or not form.call_end):
            return "", ""
        return form.call_begin, form.call_end

    def _call(self) -> str:
        rules = CallRules(self._format, self._lark)
        return self._lark.rule(choice(rules.call(*self._function(each)) for each in self._demand.functions))

    def _function(self, function: Mapping[str, Any]) -> tuple[str, Schema]:
        parameters = {"type": "object", **(function.get("parameters") or {})}
        parameters.setdefault("properties", {})
        # What a function does not name, it does not take.
        parameters.setdefault("additionalProperties", False)
        return function["name"], Schema(parameters, parameters, bool(function.get("strict")))

    # -- content -----------------------------------------------------------------------------------

    def _framed(self, content: str) -> str:
        """Content between the marks that the format has for it."""
        form, text = self._format, self._lark.text
        if isinstance(form.call, ChannelCall):
            return f"{text(f'{form.call.channel}final{form.call.message}')} {content}"
        if form.silent:
            return f"{text(form.silent[0])} {content} {text(form.silent[1])} ({text(form.silent[2])})?"
        return content

    def _empty_content(self) -> str:
        silent = self._format.silent
        return f"({self._lark.text(silent[0] + silent[1])})?" if silent else ""

    def _free(self) -> str:
        """Any text, and calls in it."""
        form = self._format
        begin = form.section_begin or self._marks()[0]
        anything = self._lark.regex("(?s:.+)")
        if isinstance(form.call, ChannelCall) or form.silent:
            return choice([f"{self._empty_content()} {self._calls()}", self._framed(f"{anything}?")])
        if not begin:
            first = "\\[" if isinstance(form.call, PythonCall) else "\\{"
            text = self._lark.regex(f"[^{first}\\s](?s:.*)")
            tag = self._lark.text(form.call_begin)
            return choice([f"({tag})? {self._calls()}", text])
        lead, calls = self._lark.until(begin), self._calls(begun=True)
        rest = anything if self._lark.is_plain(begin) else self._lark.without(begin)
        # A section has all calls that there are.
        most = 1 if form.section_begin else self._demand.most_calls
        if most == 1 or self._demand.most_calls == 1:
            return (
                f"({lead} {calls})? {rest}?" if self._lark.is_plain(begin) else f"({rest}? | {lead} {calls})"
            )
        return f"({lead} {calls})* {rest}?"


def content_rule(structure: Structure) -> str:
    """The body of a rule for content of ``structure``."""
    match structure.kind:
        case "json_object":
            return json_in_lark({"type": "object"})
        case "json_schema":
            return json_in_lark(json.loads(structure.value), is_strict=structure.strict)
        case "regex":
            return f"/{_SLASH.sub(_escape_slash, structure.value)}/"
        case "choice":
            return choice(map(literal, structure.choices))
        case "grammar":
            lark = gbnf.to_lark(structure.value) if gbnf.is_gbnf(structure.value) else structure.value
            return f"%lark {{\n{lark}\n}}"


def _up_to(most: int, body: str) -> str:
    return f"({body}){{0,{most}}}" if most else ""


def _escape_slash(match: re.Match[str]) -> str:
    return {"/": "\\/", "\n": "\\n"}.get(match[0], match[0])
