"""The format that is seen in a chat template."""
# ruff: noqa: RUF001 - marks of models have such characters

from __future__ import annotations

import pytest

from engines.text.answers.choice import choose_format
from engines.text.answers.examples import call_writer
from engines.text.answers.formats import BY_NAME, GENERIC

HERMES = "{% if tools %}<tool_call>{% endif %}"


@pytest.mark.parametrize(
    ("template", "name", "reasoning"),
    [
        ("{{ messages }}", "json", None),
        (HERMES, "hermes", None),
        (HERMES + "{{ content.split('</think>') }}", "hermes", "<think>"),
        (HERMES + "<function=name><parameter=x>", "qwen3-xml", None),
        ("<seed:think><function=name><parameter=x>", "qwen3-xml", "<seed:think>"),
        ("[TOOL_CALLS]{{ calls | tojson }}", "mistral-v3", None),
        ("[TOOL_CALLS]name[ARGS]{}[THINK]", "mistral-v11", "[THINK]"),
        ("<｜tool▁calls▁begin｜>\n```json", "deepseek-v3", None),
        ("{% set mark = '｜DSML｜' %}<{{ mark }}function_calls>{{ m.tool_calls }}", "deepseek-v3.2", None),
        ("{% set mark = '｜DSML｜' %}<{{ mark }}tool_calls>", "deepseek-v4", None),
        ("<|channel|>analysis<|message|>", "harmony", "<|channel|>analysis<|message|>"),
        (
            "'<|open|>' + tag + '<|sep|>' '<|close|>' tag('think')",
            "kimi-k3",
            "<|open|>think<|sep|>",
        ),
        ("<|tool_call>'<|channel>thought\\n'", "gemma4", "<|channel>thought\n"),
    ],
)
def test_the_most_specific_format_that_a_template_shows(
    template: str, name: str, reasoning: str | None
) -> None:
    found = choose_format(template)
    assert found.name == name
    assert [each.begin for each in found.reasonings] == ([] if reasoning is None else [reasoning])


def test_a_checkpoints_response_template_counts_before_its_chat_template() -> None:
    """As transformers 5.13 and newer write them into tokenizer_config.json."""
    calls = {"open_pattern": r"\s*<tool_call>\s*<function=(?P<name>[^>]+)>", "content": "xml-inline"}
    calls["content_args"] = {"tag_pattern": "<parameter=(?P<key>[^>]+)>"}  # type: ignore[assignment]
    fields = {"thinking": {"open": "<think>", "close": "</think>"}, "tool_calls": calls}
    found = choose_format(HERMES, None, {"fields": fields})
    assert (found.name, [each.begin for each in found.reasonings]) == ("qwen3-xml", ["<think>"])
    gemma = {"fields": {"tool_calls": {"open_pattern": r"<\|tool_call>call:(?P<name>\w+)"}}}
    assert choose_format("", None, gemma).name == "gemma4"
    assert choose_format(HERMES, None, {"fields": {"content": {"close": ["<eos>"]}}}).name == "hermes"
    assert choose_format(HERMES, "glm", gemma).name == "glm"


def test_a_format_that_is_told() -> None:
    assert choose_format(HERMES, "glm").name == "glm"


def test_examples_of_calls() -> None:
    hermes = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    assert call_writer(GENERIC)("f", "{}") == hermes
    assert call_writer(BY_NAME["glm"])("f", "{}") == hermes
    deepseek = (
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    )
    assert call_writer(BY_NAME["deepseek-v3.1"])("f", "{}") == deepseek
