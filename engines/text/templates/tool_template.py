"""Tools as one chat template shows them: found out by rendering a few chats with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from engines.errors import RequestError
from engines.text.templates.late_system import LateSystem
from engines.text.templates.tool_history import Message, ToolHistory, has_history
from engines.text.templates.tool_prompt import Tool, WriteCall, hermes_call, instruction, with_instruction

Render = Callable[[Sequence[Message], Sequence[Tool] | None], Awaitable[str | None]]
"""Renders messages and tools without a generation prompt; None where nothing needs to be found out."""

_NAME, _SYSTEM = "probe_function", "probe_system"
_PROBE_TOOL = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "probe",
        "parameters": {"type": "object", "properties": {"x": {"type": "string", "description": "probe"}}},
    },
}
_ASKED = {"role": "user", "content": "probe"}


class ToolTemplate:
    """The messages and tools that one chat template is given.

    A template that shows no tools is given none: the model is told of them in a message. Which kind this one
    is is found out once, when the first tools come. See `ToolHistory` for calls and results, and `LateSystem`
    for system messages.
    """

    def __init__(self, render: Render, write: WriteCall = hermes_call) -> None:
        self._render = render
        self._write = write
        self._late = LateSystem(self._render_history)
        self._history = ToolHistory(self._render_history, write)
        self._shows_tools: bool | None = None
        self._shows_system = True

    async def adapt(
        self, messages: Sequence[Message], tools: Sequence[Tool] | None
    ) -> tuple[Sequence[Message], Sequence[Tool] | None]:
        """``messages`` and ``tools`` as the template takes them. Raises `EngineError` as rendering does, but
        never for what a probe makes the template refuse."""
        if self._shows_tools is None and (tools or has_history(messages)):
            await self._find()
        messages = await self._history.adapt(await self._late.adapt(messages))
        if not tools:
            return messages, None
        shown = [_shown(tool) for tool in tools]
        if self._shows_tools:
            return messages, shown
        text = instruction(shown, self._write)
        return with_instruction(messages, text, in_system=self._shows_system), None

    async def _render_history(self, messages: Sequence[Message]) -> str | None:
        # Some templates cannot do without tools.
        return await self._render(messages, [_PROBE_TOOL] if self._shows_tools else None)

    async def _find(self) -> None:
        shows_tools = await self._shows(_NAME, [_ASKED], [_PROBE_TOOL])
        if not shows_tools:
            system = {"role": "system", "content": _SYSTEM}
            self._shows_system = await self._shows(_SYSTEM, [system, _ASKED], None)
        self._shows_tools = shows_tools

    async def _shows(self, text: str, messages: list[Message], tools: list[Tool] | None) -> bool:
        try:
            rendered = await self._render(messages, tools)
        except RequestError:
            return False
        return rendered is None or text in rendered


def _shown(tool: Tool) -> dict[str, Any]:
    """A tool with all that templates look for, and nothing that is only for us."""
    given: Mapping[str, Any] = tool["function"]
    function = {
        "name": given["name"],
        "description": given.get("description") or "",
        "parameters": {"type": "object", "properties": {}, **(given.get("parameters") or {})},
    }
    return {"type": "function", "function": function}
