"""Tool history: earlier calls of tools and their results, in a form that a model's chat template shows."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from engines.errors import RequestError
from engines.text.templates.call_ids import ID_FORMS, IdForm, as_given, with_ids
from engines.text.templates.tool_prompt import WriteCall, calls_text, hermes_call, result_text

Message = Mapping[str, Any]
Render = Callable[[Sequence[Message]], Awaitable[str | None]]
"""Renders messages without a generation prompt; None where nothing needs to be found out."""

# A call and a result to try a template with.
_NAME, _ARGUMENT, _RESULT, _ID = "probe_tool", "probe_argument", "probe_result", "call_of_a_client"
_SECOND = "second_tool"
_ASKED = {"role": "user", "content": "probe"}
_ANSWERED = {"role": "tool", "tool_call_id": _ID, "content": _RESULT}


def _called(*names: str) -> Message:
    calls = [
        {
            "id": _ID if number == 0 else f"{_ID}_{number}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps({_ARGUMENT: "x"})},
        }
        for number, name in enumerate(names)
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls}


@dataclass(frozen=True, slots=True)
class _Form:
    """What one template shows. ``calls``: whether it shows calls, with their arguments as ``objects`` or as
    JSON text, beside content that is ``null`` or empty, with ``ids`` in that form, and several in one message
    if ``parallel``; ``results``: whether it shows results."""

    calls: bool = True
    objects: bool = True
    null: bool = True
    ids: IdForm = as_given
    parallel: bool = True
    results: bool = True

    def apply(self, messages: Sequence[Message], write: WriteCall) -> list[Message]:
        messages = with_ids(messages, self.ids)
        if self.calls and not self.parallel:
            messages = [*_one_by_one(messages)]
        adapted: list[Message] = []
        results: list[str] = []  # of one turn
        for message in messages:
            if message["role"] == "tool" and not self.results:
                results.append(result_text(message))
                continue
            if results:
                adapted.append(_user(results))
                results = []
            adapted.append(self._call(message, write) if message.get("tool_calls") else message)
        return [*adapted, _user(results)] if results else adapted

    def _call(self, message: Message, write: WriteCall) -> Message:
        if not self.calls:
            kept = {name: value for name, value in message.items() if name != "tool_calls"}
            return {**kept, "content": calls_text(message, write)}
        content = message["content"] or (None if self.null else "")
        # gpt-oss's word for it; its template refuses content beside it.
        thought = message.get("reasoning_content") if not content else None
        told = {"thinking": thought} if thought else {}
        calls = [*map(self._typed, message["tool_calls"])]
        return {**message, "content": content, "tool_calls": calls, **told}

    def _typed(self, call: Mapping[str, Any]) -> Mapping[str, Any]:
        function = call["function"]
        arguments = _object(function["arguments"]) if self.objects else function["arguments"]
        return {**call, "function": {**function, "arguments": arguments}}


# The likelier first; of these, what tells a call from an answer without text best.
_FORMS = [
    _Form(objects=objects, null=null, ids=ids)
    for ids, objects, null in product(ID_FORMS, (True, False), (True, False))
]


def has_history(messages: Sequence[Message]) -> bool:
    """Whether there are calls or results among ``messages``."""
    return any(message.get("tool_calls") or message["role"] == "tool" for message in messages)


class ToolHistory:
    """The history that one chat template is given.

    Templates want arguments as objects or as text, null or empty content beside them, ids of a form of their
    own, and perhaps one call a message. Many know no calls: they fail on them, or leave them out without a
    word. How this one does is found out once, when the first history comes; what it does not show is written
    as text, a result as a user's.
    """

    def __init__(self, render: Render, write: WriteCall = hermes_call) -> None:
        self._render = render
        self._write = write
        self._form: _Form | None = None

    async def adapt(self, messages: Sequence[Message]) -> Sequence[Message]:
        """``messages``, with calls and results as the template takes them."""
        if not has_history(messages):
            return messages
        if self._form is None:
            self._form = await self._find()
        return self._form.apply(messages, self._write)

    async def _find(self) -> _Form:
        """Tried with a result behind the call, as some treat a last message otherwise, then without."""
        called, turn = [_ASKED, _called(_NAME)], [_ASKED, _called(_NAME), _ANSWERED]
        for messages, shown in (turn, _shows_turn), (called, _shows_call):
            for form in _FORMS:
                if await self._shows(form, messages, shown):
                    form = replace(form, results=messages is turn)
                    parallel = await self._shows(form, [_ASKED, _called(_NAME, _SECOND)], _shows_both)
                    return replace(form, parallel=parallel)
        form = _Form(calls=False)
        return replace(form, results=await self._shows(form, turn, _shows_result))

    async def _shows(self, form: _Form, messages: list[Message], shown: Callable[[str], bool]) -> bool:
        try:
            text = await self._render(form.apply(messages, self._write))
        except RequestError:
            return False
        return text is None or shown(text)


def _shows_call(text: str) -> bool:
    """An object that was printed as Python writes it, or a null that was, is not what the model knows."""
    return _NAME in text and _ARGUMENT in text and f"'{_ARGUMENT}'" not in text and "None" not in text


def _shows_turn(text: str) -> bool:
    return _shows_call(text) and _shows_result(text)


def _shows_both(text: str) -> bool:
    return _NAME in text and _SECOND in text


def _shows_result(text: str) -> bool:
    return _RESULT in text


def _one_by_one(messages: Sequence[Message]) -> Iterator[Message]:
    """``messages`` with one call each, behind which its result follows."""
    index = 0
    while index < len(messages):
        message, index = messages[index], index + 1
        calls = message.get("tool_calls") or ()
        if len(calls) < 2:
            yield message
            continue
        results = []
        while index < len(messages) and messages[index]["role"] == "tool":
            results.append(messages[index])
            index += 1
        for number, call in enumerate(calls):
            said = message if number == 0 else {"role": message["role"], "content": None}
            yield {**said, "tool_calls": [call]}
            yield from (result for result in results if result.get("tool_call_id") == call["id"])
        known = {call["id"] for call in calls}
        yield from (result for result in results if result.get("tool_call_id") not in known)


def _user(results: Sequence[str]) -> Message:
    return {"role": "user", "content": "\n".join(results)}


def _object(arguments: str) -> dict[str, Any]:
    """The arguments of a call; models write some that are no object, which is kept as it is."""
    try:
        found = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        found = arguments
    return found if isinstance(found, dict) else {"arguments": found}
