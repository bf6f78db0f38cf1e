"""Variables of chat templates, and prompts that end inside a message."""

from __future__ import annotations

from typing import Any

import pytest

from engines.base import Rendering
from engines.errors import RequestError, UnsupportedFeature
from engines.text.templates.chat_prompt import RESERVED, OpenEnd, variables
from engines.text.templates.renderer import ChatTemplate

CHATML = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
STRIPS = "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}<|end|>{% endfor %}"
HIDES = "{{ messages[0].content }}"
REFUSING = "{% if thinking and thinking_effort not in ['low', 'high', 'max'] %}"
NO_THINK = "{%- elif reasoning_effort not in ['high', 'low', 'no_think'] %}"
CHAT = [{"role": "user", "content": "a"}, {"role": "assistant", "content": " b "}]


@pytest.mark.parametrize(
    ("source", "text"),
    [(CHATML, "<|user|>a<|end|><|assistant|> b "), (STRIPS, "<|user|>a<|end|><|assistant|>b")],
)
async def test_the_prompt_ends_with_the_last_messages_text(source: str, text: str) -> None:
    end = OpenEnd()
    template = ChatTemplate(source, bos_token="", eos_token="")
    rendered = await template.render(end.mark(CHAT))
    await template.close()
    assert end.cut(rendered) == text


def test_a_message_that_is_not_shown_cannot_be_continued() -> None:
    with pytest.raises(RequestError) as refusal:
        OpenEnd().cut("a")
    assert refusal.value.param == "continue_final_message"


@pytest.mark.parametrize(
    ("source", "effort", "given"),
    [
        ("{{ reasoning_effort }}", "minimal", {"reasoning_effort": "minimal"}),
        ("{% if enable_thinking %}", "low", {"enable_thinking": True}),
        ("{% if enable_thinking %}", "none", {"enable_thinking": False}),
        ("{{ reasoning_effort }}{{ enable_thinking }}", None, {}),
        ("{% if thinking %}{{ message.thinking }}", "none", {"thinking": False}),
        ("{{ message.thinking }}{{ reasoning_effort }}", "low", {"reasoning_effort": "low"}),
        (REFUSING, "minimal", {"thinking_effort": "low", "thinking": True}),
        (REFUSING, "medium", {"thinking_effort": "low", "thinking": True}),
        (REFUSING, "none", {"thinking": False}),
        (NO_THINK, "none", {"reasoning_effort": "no_think"}),
        ("{{ messages }}", "none", {}),
        (None, "none", {}),
    ],
)
def test_templates_are_told_the_effort_in_their_own_terms(
    source: str | None, effort: str | None, given: dict[str, Any]
) -> None:
    assert variables(Rendering(reasoning_effort=effort), {}, source) == given


def test_variables_of_the_request_come_first() -> None:
    rendering = Rendering(reasoning_effort="high")
    args = {"enable_thinking": False, "other": 1}
    assert variables(rendering, args, "{{ enable_thinking }}") == args


def test_what_no_template_or_request_can_set_is_refused() -> None:
    with pytest.raises(UnsupportedFeature):
        variables(Rendering(reasoning_effort="minimal"), {}, "{{ messages }}")
    for name in ("messages", "tools", "bos_token", "chat_template"):
        assert name in RESERVED
        with pytest.raises(RequestError):
            variables(Rendering(), {name: 1}, None)


@pytest.mark.parametrize(
    ("source", "reasons", "effort", "given"),
    [
        ("{% if enable_thinking %}", True, None, {"enable_thinking": True}),
        ("{% if enable_thinking %}", False, None, {"enable_thinking": False}),
        ("{{ reasoning_effort }}", False, None, {}),
        ("{{ reasoning_effort }}", True, "high", {"reasoning_effort": "high"}),
        ("{{ messages }}", True, "high", {}),
    ],
)
def test_a_wish_to_reason_is_met_as_far_as_the_template_can(
    source: str, reasons: bool, effort: str | None, given: dict[str, Any]
) -> None:
    rendering = Rendering(reasons=reasons, reasoning_effort=effort, must_take_effort=False)
    assert variables(rendering, {}, source) == given
