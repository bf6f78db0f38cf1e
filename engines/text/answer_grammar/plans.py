"""Plans of the answers of one model, in its declared format."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from engines.base import Prompt, Structure, ToolUse
from engines.text.answer_grammar.answer import MOST_CALLS, Demand, write_grammar
from engines.text.answers.format import Format
from engines.text.answers.plan import Plan
from engines.text.answers.reader import answer_reader, opened_reasoning
from engines.text.answers.tool_use import json_schema
from engines.text.tokens.special_tokens import SpecialTokens

# Structures kept for each model, those used last: of many tools one takes some ten milliseconds to write.
KEPT = 32


class Vocabulary(Protocol):
    """The part of a vocabulary that tells tokens by their text."""

    @property
    def special_tokens(self) -> SpecialTokens: ...

    def tokenize(self, text: str, *, add_special: bool) -> tuple[int, ...]: ...


class AnswerPlans:
    """Makes a plan for each chat with one model, which answers in ``format``."""

    def __init__(
        self, format: Format, vocabulary: Vocabulary, *, grammar_has_reasoning: bool = False
    ) -> None:
        """``grammar_has_reasoning``: the engine's masks do not sleep while the model reasons."""
        self._format = format
        self._grammar_has_reasoning = grammar_has_reasoning
        self._vocabulary = vocabulary
        self._tokens: dict[str, int | None] = {}
        self._controls = vocabulary.special_tokens.controls
        self._written: OrderedDict[object, Structure] = OrderedDict()

    def plan(self, tools: ToolUse | None, prompt: Prompt, structure: Structure | None) -> Plan | None:
        """None where all of the text is content, in whatever form is demanded of it."""
        form, text = self._format, prompt.text or ""
        if tools is None and not (form.reasonings or form.silent):
            return None
        definitions = () if tools is None else tools.definitions
        make = partial(answer_reader, form, definitions, prompt=text, controls=self._controls)
        return Plan(make, tools, self._structure(tools, text, structure))

    def _structure(self, tools: ToolUse | None, prompt: str, content: Structure | None) -> Structure | None:
        """The form of the answer, reasoning aside; None if it is free."""
        if content is None and not _binds(tools):
            return None
        demand = self._demand(prompt, content)
        key = (_content(tools), content, demand.opening, demand.closing)
        if (known := self._written.get(key)) is not None:
            self._written.move_to_end(key)
            return known
        written = self._written[key] = self._write(tools, content, demand)
        while len(self._written) > KEPT:
            self._written.popitem(last=False)
        return written

    def _write(self, tools: ToolUse | None, content: Structure | None, demand: Demand) -> Structure:
        parts = [("response_format", content)] if content is not None else []
        if tools is not None:
            if tools.is_forced:
                parts, demand = [], replace(demand, content=None, must_call=True)
            most = 1 if tools.named is not None or not tools.parallel else MOST_CALLS
            demand = replace(demand, functions=_functions(tools), most_calls=most)
            parts += _schemas(tools)
        grammar = write_grammar(self._format, demand, self._token_of)
        return Structure("grammar", grammar, parts=tuple(parts))

    def _demand(self, prompt: str, content: Structure | None) -> Demand:
        """What is asked of an answer to ``prompt``, which may reason first unless the prompt decides that."""
        reasonings, end = self._format.reasonings, prompt[-256:].rstrip()
        opened = opened_reasoning(self._format, prompt)
        if not reasonings or (opened is None and any(end.endswith(each.end) for each in reasonings)):
            return Demand(content=content)
        reasoning = opened or reasonings[0]
        return Demand(
            content=content,
            opening="" if opened is not None else reasoning.begin,
            closing=reasoning.end if self._grammar_has_reasoning else "",
        )

    def _token_of(self, text: str) -> int | None:
        if text not in self._tokens:
            found = self._vocabulary.tokenize(text, add_special=False)
            self._tokens[text] = found[0] if len(found) == 1 else None
        return self._tokens[text]


def _binds(tools: ToolUse | None) -> bool:
    """Whether an answer that may call ``tools`` is held to a form by them."""
    return tools is not None and (tools.is_forced or any(map(_is_strict, _functions(tools))))


def _content(tools: ToolUse | None) -> object:
    """What tells uses of tools apart, to be hashed."""
    if tools is None:
        return None
    return json.dumps(tools.definitions), tools.required, tools.named, tools.parallel


def _functions(tools: ToolUse) -> list[Mapping[str, Any]]:
    functions = [definition["function"] for definition in tools.definitions]
    return [each for each in functions if tools.named in (None, each["name"])]


def _is_strict(function: Mapping[str, Any]) -> bool:
    return bool(function.get("strict"))


def _schemas(tools: ToolUse) -> list[tuple[str, Structure]]:
    """The schemas of the functions that may be called, each with its place in the request."""
    return [
        (
            f"tools.{number}.function.parameters",
            replace(json_schema(function["parameters"]), strict=_is_strict(function)),
        )
        for number, function in enumerate(definition["function"] for definition in tools.definitions)
        if function.get("parameters") and tools.named in (None, function["name"])
    ]
