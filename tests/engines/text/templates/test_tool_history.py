"""Histories with calls and results, in the forms that templates take."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest

from engines.errors import RequestError
from engines.text.templates.renderer import ChatTemplate, TemplateWorker
from engines.text.templates.tool_history import ToolHistory

CHATML = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
ADDING = "{% for m in messages %}{{ '<' + m.role + '>' + m.content }}{% endfor %}"
OBJECTS = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content or '' }}"
    "{% for c in m.tool_calls %}[{{ c.function.name }} {{ c.function.arguments | tojson }}]{% endfor %}"
    "{% endfor %}"
)
PAIRS = OBJECTS.replace("| tojson", ".items() | list | length }} {{ c.function.arguments.keys() | first")
TEXTS = (
    "{% for m in messages %}{% if m.content is none %}"
    "{% for c in m.tool_calls %}{{ '[' + c.function.name + ' ' + c.function.arguments + ']' }}{% endfor %}"
    "{% else %}{{ '<' + m.role + '>' + m.content }}{% endif %}{% endfor %}"
)
ALTERNATING = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}"
)
DROPPING = (
    "{% for m in messages %}{% if m.role != 'tool' %}<{{ m.role }}>{{ m.content or '' }}{% endif %}"
    "{% endfor %}"
)
NINE = OBJECTS.replace(
    "{% for c in m.tool_calls %}",
    "{% for c in m.tool_calls %}{% if c.id | length != 9 %}{{ raise_exception('nine') }}{% endif %}",
)
NUMBERED = (
    "{% for m in messages %}<{{ m.role }} {{ m.tool_call_id }}>{{ m.content or '' }}"
    "{% for c in m.tool_calls %}[{{ c.id }} {{ c.function.arguments }}]{% endfor %}{% endfor %}"
)
SINGLE = OBJECTS.replace(
    "{% for m in messages %}",
    "{% for m in messages %}{% if m.tool_calls | length > 1 %}{{ raise_exception('one') }}{% endif %}",
)
UNTIL_LATER = OBJECTS.replace(
    "{{ m.content or '' }}",
    "{{ m.content.split() | join if m.role == 'assistant' and not loop.last else m.content or '' }}",
)
CALLS_TEXT = (
    '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>\n'
    '<tool_call>\n{"name": "f", "arguments": [}\n</tool_call>'
)
RESULTS_TEXT = "\n".join(f'<tool_response name="f">\n{each}\n</tool_response>' for each in ("r1", "r2"))
HISTORY: list[dict[str, Any]] = [
    {"role": "user", "content": "Q"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
            {"id": "2", "type": "function", "function": {"name": "f", "arguments": "["}},
        ],
    },
    {"role": "tool", "tool_call_id": "1", "content": "r1"},
    {"role": "tool", "tool_call_id": "2", "name": "f", "content": "r2"},
]


@pytest.fixture
async def worker() -> AsyncIterator[TemplateWorker]:
    worker = TemplateWorker()
    yield worker
    await worker.close()


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        (CHATML, f"<user>Q<assistant>{CALLS_TEXT}<tool>r1<tool>r2"),
        (ADDING, f"<user>Q<assistant>{CALLS_TEXT}<tool>r1<tool>r2"),
        (OBJECTS, '<user>Q<assistant>[f {"a": 1}][f {"arguments": "["}]<tool>r1<tool>r2'),
        (NINE, '<user>Q<assistant>[f {"a": 1}][f {"arguments": "["}]<tool>r1<tool>r2'),
        (SINGLE, '<user>Q<assistant>[f {"a": 1}]<tool>r1<assistant>[f {"arguments": "["}]<tool>r2'),
        (
            NUMBERED,
            '<user >Q<assistant >[functions.f:0 {"a": 1}][functions.f:1 []'
            "<tool functions.f:0>r1<tool functions.f:1>r2",
        ),
        (PAIRS, "<user>Q<assistant>[f 1 a][f 1 arguments]<tool>r1<tool>r2"),
        (TEXTS, '<user>Q[f {"a": 1}][f []<tool>r1<tool>r2'),
        (ALTERNATING, f"<user>Q<assistant>{CALLS_TEXT}<user>{RESULTS_TEXT}"),
        (DROPPING, f"<user>Q<assistant>{CALLS_TEXT}<user>{RESULTS_TEXT}"),
    ],
)
async def test_what_a_model_is_shown_of_a_history(worker: TemplateWorker, source: str, shown: str) -> None:
    template = ChatTemplate(source, bos_token="", eos_token="", timeout=20, worker=worker)
    history = ToolHistory(lambda messages: template.render(messages, add_generation_prompt=False))
    for _ in range(2):
        assert await template.render(await history.adapt(HISTORY)) == shown
    if source == NUMBERED:
        return
    going_on = [*HISTORY, {"role": "assistant", "content": "A"}, {"role": "user", "content": "B"}]
    assert await template.render(await history.adapt(going_on)) == f"{shown}<assistant>A<user>B"


async def test_contents_are_not_null_where_a_later_turn_would_fail(worker: TemplateWorker) -> None:
    template = ChatTemplate(UNTIL_LATER, bos_token="", eos_token="", timeout=20, worker=worker)
    history = ToolHistory(lambda messages: template.render(messages, add_generation_prompt=False))
    adapted = await history.adapt(HISTORY)
    assert "[f " in await template.render(adapted)
    assert adapted[1]["content"] == ""


async def test_a_template_is_asked_once_and_only_about_a_history() -> None:
    asked: list[Sequence[Mapping[str, Any]]] = []

    async def render(messages: Sequence[Mapping[str, Any]]) -> str:
        asked.append(messages)
        raise RequestError("no")

    history = ToolHistory(render)
    plain = HISTORY[:1]
    assert await history.adapt(plain) is plain
    assert not asked
    await history.adapt(HISTORY)
    count = len(asked)
    await history.adapt(HISTORY)
    assert len(asked) == count


async def test_text_beside_a_call_stays() -> None:
    async def render(messages: Sequence[Mapping[str, Any]]) -> None:
        return None

    said = [{**HISTORY[1], "content": "I look."}]
    assert (await ToolHistory(render).adapt(said))[0]["content"] == "I look."

    async def bare(messages: Sequence[Mapping[str, Any]]) -> str:
        return ""

    assert (await ToolHistory(bare).adapt(said))[0]["content"] == f"I look.\n{CALLS_TEXT}"
