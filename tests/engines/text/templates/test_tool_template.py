"""Tools as templates show them, and as the model is told of them where none does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from engines.text.templates.renderer import ChatTemplate, TemplateWorker
from engines.text.templates.tool_template import ToolTemplate

MESSAGES = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]
TOOL = {"type": "function", "function": {"name": "look", "strict": True}}
SHOWN = {"type": "function", "function": {"name": "look", "description": "", "parameters": {}}}
CHATML = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
SHOWING = "{{ tools | tojson if tools else '' }}" + CHATML
REFUSING = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}{% endfor %}"
)
NEEDING = "{% for t in tools %}{{ t.function.parameters.properties.items() | list | length }}{% endfor %}"


@pytest.fixture
async def worker() -> AsyncIterator[TemplateWorker]:
    worker = TemplateWorker()
    yield worker
    await worker.close()


async def shown(worker: TemplateWorker, source: str, messages: list[dict[str, Any]]) -> str:
    template = ChatTemplate(source, bos_token="", eos_token="", timeout=20, worker=worker)
    tools = ToolTemplate(lambda asked, given: template.render(asked, tools=given))
    for _ in range(2):
        adapted, kept = await tools.adapt(messages, [TOOL])
        text = await template.render(adapted, tools=kept)
    return text


async def test_a_template_that_shows_tools_is_given_them(worker: TemplateWorker) -> None:
    text = await shown(worker, SHOWING, MESSAGES)
    tools, chat = text.split("]<")
    (tool,) = json.loads(tools + "]")
    assert tool["function"] == {**SHOWN["function"], "parameters": {"type": "object", "properties": {}}}  # type: ignore[dict-item]
    assert chat == "system>S<user>Q"


async def test_a_template_that_cannot_do_without_tools_shows_histories(worker: TemplateWorker) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    asked = [*MESSAGES, {"role": "assistant", "content": None, "tool_calls": [call]}]
    source = (
        NEEDING
        + "{{ tools[0].function.name }}{% for m in messages %}{{ m.content or '' }}"
        + "{% for c in m.tool_calls %}[{{ c.function.name }}{{ c.function.arguments | tojson }}]{% endfor %}"
        + "{% endfor %}"
    )
    assert await shown(worker, source, asked) == "0lookSQ[f{}]"


@pytest.mark.parametrize(
    ("source", "messages", "start"),
    [
        (CHATML, MESSAGES, "<system>S\n\nYou may call"),
        (CHATML, MESSAGES[1:], "<system>You may call"),
        (REFUSING + CHATML, MESSAGES[1:], "<user>You may call"),
    ],
)
async def test_a_template_that_shows_none_has_them_in_a_message(
    worker: TemplateWorker, source: str, messages: list[dict[str, Any]], start: str
) -> None:
    text = await shown(worker, source, messages)
    assert text.startswith(start)
    assert text.endswith("Q")
    assert '{"name": "look", "description": "", "parameters"' in text
    assert "strict" not in text
    assert '<tool_call>\n{"name": "<function-name>"' in text
