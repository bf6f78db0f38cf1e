"""System messages behind the first turn, with templates of all kinds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from engines.text.templates.late_system import LateSystem
from engines.text.templates.renderer import ChatTemplate, TemplateWorker

CHATML = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
FIRST_ONLY = (
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}{{ raise_exception('no') }}"
    "{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}"
)
SILENT = (
    "{% for m in messages %}{% if m.role != 'system' or loop.first %}<{{ m.role }}>{{ m.content }}{% endif %}"
    "{% endfor %}"
)
GATHERING = (
    "{% for m in messages if m.role == 'system' %}{{ m.content }}{% endfor %}"
    "{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{% endfor %}"
)
NOTE = "<system>\nN\n</system>"


@pytest.fixture
async def worker() -> AsyncIterator[TemplateWorker]:
    worker = TemplateWorker()
    yield worker
    await worker.close()


def chat(turns: str) -> list[dict[str, Any]]:
    """``s``ystem, ``N``ote of the system, ``u``ser, ``a``ssistant, ``t``ool."""
    roles = {"s": "system", "N": "system", "u": "user", "a": "assistant", "t": "tool"}
    return [{"role": roles[turn], "content": turn} for turn in turns]


async def shown(worker: TemplateWorker, source: str, turns: str) -> str:
    template = ChatTemplate(source, bos_token="", eos_token="", timeout=20, worker=worker)
    late = LateSystem(lambda messages: template.render(messages))
    return await template.render(await late.adapt(chat(turns)))


async def test_what_a_template_shows_in_its_place_stays(worker: TemplateWorker) -> None:
    assert await shown(worker, CHATML, "suNau") == "<system>s<user>u<system>N<assistant>a<user>u"


@pytest.mark.parametrize("source", [FIRST_ONLY, SILENT, GATHERING])
async def test_else_it_becomes_a_part_of_what_the_user_said(worker: TemplateWorker, source: str) -> None:
    system = "s" if source == GATHERING else "<system>s"
    for turns, expected in (
        ("su", "<user>u"),
        ("suNau", f"<user>u\n\n{NOTE}<assistant>a<user>u"),
        ("suNu", f"<user>u\n\n{NOTE}\n\nu"),
        ("suatN", f"<user>u<assistant>a<tool>t\n\n{NOTE}"),
        ("suaNu", f"<user>u<assistant>a<user>{NOTE}\n\nu"),
        ("suaN", f"<user>u<assistant>a<user>{NOTE}"),
        ("suaNNa", f"<user>u<assistant>a<user>{NOTE}\n\n{NOTE}<assistant>a"),
        ("sNu", "\n\nN<user>u"),
    ):
        assert await shown(worker, source, turns) == system + expected, turns


async def test_parts_of_a_message_stay_parts(worker: TemplateWorker) -> None:
    template = ChatTemplate(FIRST_ONLY, bos_token="", eos_token="", timeout=20, worker=worker)
    image = {"type": "image", "index": 0}
    messages = [{"role": "user", "content": [image]}, {"role": "system", "content": "N"}]
    adapted = await LateSystem(lambda asked: template.render(asked)).adapt(messages)
    assert adapted == [{"role": "user", "content": [image, {"type": "text", "text": f"\n\n{NOTE}"}]}]
