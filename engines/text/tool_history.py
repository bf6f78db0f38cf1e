"""Tool history: earlier calls of tools and their results, in a form that a model's chat template shows."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from engines.errors import RequestError

Message = Mapping[str, Any]
Render = Callable[[Sequence[Message]], Awaitable[str | None]]
"""Renders messages without a generation prompt; None where nothing needs to be found out."""

# A call and a result to try a template with. Mistral's templates want ids of nine characters.
_NAME, _ARGUMENT, _RESULT, _ID = "probe_tool", "probe_argument", "probe_result", "call00001"
_FUNCTION = {"name": _NAME, "arguments": json.dumps({_ARGUMENT: "x"})}
_ASKED = {"role": "user", "content": "probe"}
_CALLED = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": _ID, "type": "function", "function": _FUNCTION}],
}
_ANSWERED = {"role": "tool", "tool_call_id": _ID, "name": _NAME, "content": _RESULT}


@dataclass(frozen=True, slots=True)
class _Form:
    """What one template shows. ``calls``: whether it shows calls, with their arguments as ``objects`` or as
    JSON text, beside content that is ``null`` or empty; ``results``: whether it shows results."""

    calls: bool = True
    objects: bool = True
    null: bool = True
    results: bool = True

    def apply(self, messages: Iterable[Message]) -> list[Message]:
        adapted: list[Message] = []
        results: list[str] = []  # of one turn
        for message in messages:
            if message["role"] == "tool" and not self.results:
                results.append(_result_text(message))
                continue
            if results:
                adapted.append(_user(results))
                results = []
            adapted.append(self._call(message) if message.get("tool_calls") else message)
        return [*adapted, _user(results)] if results else adapted

    def _call(self, message: Message) -> Message:
        if not self.calls:
            kept = {name: value for name, value in message.items() if name != "tool_calls"}
            return {**kept, "content": _call_text(message)}
        content = message["content"] or (None if self.null else "")
        return {**message, "content": content, "tool_calls": [*map(self._typed, message["tool_calls"])]}

    def _typed(self, call: Mapping[str, Any]) -> Mapping[str, Any]:
        function = call["function"]
        arguments = _object(function["arguments"]) if self.objects else function["arguments"]
        return {**call, "function": {**function, "arguments": arguments}}


# The likelier first; of these, what tells a call from an answer without text best.
_FORMS = [_Form(objects=objects, null=null) for objects, null in product((True, False), repeat=2)]


class ToolHistory:
    """The history that one chat template is given.

    Templates want arguments as objects or as text, and null or empty content beside them. Many know no calls:
    they fail on them, or leave them out without a word. How this one does is found out once, when the
    first history comes; what it does not show is written as text, a result as a user's.
    """

    def __init__(self, render: Render) -> None:
        self._render = render
        self._form: _Form | None = None

    async def adapt(self, messages: Sequence[Message]) -> Sequence[Message]:
        """``messages``, with calls and results as the template takes them."""
        if not any(message.get("tool_calls") or message["role"] == "tool" for message in messages):
            return messages
        if self._form is None:
            self._form = await self._find()
        return self._form.apply(messages)

    async def _find(self) -> _Form:
        for form in _FORMS:
            if await self._shows(form, [_ASKED, _CALLED], _shows_call):
                break
        else:
            form = _Form(calls=False)
        if await self._shows(form, [_ASKED, _CALLED, _ANSWERED], _shows_result):
            return form
        return _Form(form.calls, form.objects, form.null, results=False)

    async def _shows(self, form: _Form, messages: list[Message], shown: Callable[[str], bool]) -> bool:
        try:
            text = await self._render(form.apply(messages))
        except RequestError:
            return False
        return text is None or shown(text)


def _shows_call(text: str) -> bool:
    """An object that was printed as Python writes it, or a null that was, is not what the model knows."""
    return _NAME in text and _ARGUMENT in text and f"'{_ARGUMENT}'" not in text and "None" not in text


def _shows_result(text: str) -> bool:
    return _RESULT in text


def _call_text(message: Message) -> str:
    functions = [call["function"] for call in message["tool_calls"]]
    calls = [{"name": each["name"], "arguments": _object(each["arguments"])} for each in functions]
    text = json.dumps({"tool_calls": calls}, ensure_ascii=False)
    return f"{message['content']}\n{text}" if message["content"] else text


def _result_text(message: Message) -> str:
    named = {"name": message["name"]} if message.get("name") else {}
    return json.dumps({"tool_response": {**named, "content": message["content"]}}, ensure_ascii=False)


def _user(results: Sequence[str]) -> Message:
    return {"role": "user", "content": "\n".join(results)}


def _object(arguments: str) -> dict[str, Any]:
    """The arguments of a call; models write some that are no object, which is kept as it is."""
    try:
        found = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        found = arguments
    return found if isinstance(found, dict) else {"arguments": found}
