"""Traps of answers: each is read as it is meant, and what cannot be read is content."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import pytest

from engines.text.answers.formats import BY_NAME
from engines.text.answers.reader import answer_reader

DEEPSEEK = BY_NAME["deepseek-v3.1"]
Calls = list[tuple[str, str]]


def function(name: str, **parameters: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": parameters}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


NUMBER_OR_NOTHING = {"anyOf": [{"type": "integer"}, {"type": "null"}]}
TOOLS = [
    function("look", city={"type": "string"}, days={"type": "integer"}, unit={"$ref": "#/$defs/unit"}),
    function("save", text={"type": "string"}, label={"type": ["string", "null"]}, size=NUMBER_OR_NOTHING),
]
TOOLS[0]["function"]["parameters"]["$defs"] = {"unit": {"enum": ["1", "2"]}}


def pieces_of(text: str) -> list[tuple[str, str]]:
    """Characters, and control tokens, which are written «so»."""
    found: list[tuple[str, str]] = []
    for part in text.split("«"):
        control, end, rest = part.rpartition("»")
        found += [("", control)] if end else []
        found += [(char, "") for char in rest]
    return found


def read(
    format: str, text: str, prompt: str = "", tools: Iterable[Any] = TOOLS, **options: Any
) -> tuple[str, str, Calls]:
    reader = answer_reader(BY_NAME[format], tools, prompt=prompt, **options)
    deltas = [reader.feed(text, 0, special) for text, special in pieces_of(text)]
    deltas.append(reader.finish())
    calls: dict[int, list[str]] = {}
    for call in (call for delta in deltas for call in delta.tool_calls):
        entry = calls.setdefault(call.index, [call.name or "", ""])
        entry[1] += call.arguments
    content, reasoning = ("".join(getattr(d, part) for d in deltas) for part in ("content", "reasoning"))
    return content, reasoning, [(name, arguments) for name, arguments in calls.values()]


LOOK = '{"name": "look", "arguments": {"city": "Bonn"}}'
CALLED = [("look", '{"city": "Bonn"}')]
THINKING = "<|im_start|>assistant\n<think>\n"


@pytest.mark.parametrize(
    ("format", "text", "expected"),
    [
        # Text that only looks like a mark, or speaks of one.
        ("hermes", "a < b <tool_box> <tool_call", ("a < b <tool_box> <tool_call", "", [])),
        ("hermes", "Say <tool_call> and </tool_call>!", ("Say <tool_call> and </tool_call>!", "", [])),
        ("hermes", "x\n<think>y</think>", ("x\n<think>y</think>", "", [])),
        # Functions that there are not, and what is no call.
        ("hermes", f"<tool_call>{LOOK.replace('look', 'cook')}</tool_call>", (None, "", [])),
        ("llama3-json", '{"name": "Bob", "parameters": {}}', (None, "", [])),
        ("llama3-json", '{"name": "look"}', (None, "", [])),
        ("llama3-json", '{"name": "look", "note": 1, "parameters": {}}', (None, "", [])),
        ("llama4-pythonic", "[1, 2] and [look]", (None, "", [])),
        # Where the marks are missing, or stand in their own way.
        ("hermes", f"\n{LOOK}", ("", "", CALLED)),
        ("hermes", f"```json\n{LOOK}\n```\n```\n{LOOK}```\n", ("", "", CALLED * 2)),
        ("hermes", "```json\n[1]\n```", (None, "", [])),
        ("hermes", "```js", (None, "", [])),
        ("hermes", f"<tool_call>{LOOK}}}</tool_call> Done", (" Done", "", CALLED)),
        ("hermes", f"<tool_call>{LOOK}\n{LOOK}</tool_call>", ("", "", CALLED * 2)),
        ("hermes", f"<tool_call>{LOOK}<tool_call>{LOOK}", ("", "", CALLED * 2)),
        ("json", '{"arguments": {"city": "Bonn"}, "name": "look"}', ("", "", CALLED)),
        (
            "hermes",
            '<tool_call>{"name": "look", "arguments": "{\\"days\\": 1}"}',
            ("", "", [("look", '{"days": 1}')]),
        ),
        ("deepseek-v3.1", f"{DEEPSEEK.call_begin}look{{}}{DEEPSEEK.call_end}", ("", "", [("look", "{}")])),
        ("mistral-v11", "Hi[TOOL_CALLS]look[ARGS]{}", ("Hi[TOOL_CALLS]look[ARGS]{}", "", [])),
        ("mistral-v11", 'Hi«[TOOL_CALLS]»look{"days": 1}', ("Hi", "", [("look", '{"days": 1}')])),
        # A line break in a JSON string, which is none without an escape.
        (
            "hermes",
            '{"name": "save", "arguments": {"text": "a\nb"}}',
            ("", "", [("save", '{"text": "a\\nb"}')]),
        ),
        # Calls in reasoning: meant if nothing else follows.
        ("hermes", f"<think>So:\n<tool_call>{LOOK}</tool_call>\n</think>\n", ("", "So:", CALLED)),
        (
            "hermes",
            f"<think>Say <tool_call>{LOOK}</tool_call> then.</think>No.",
            ("No.", f"Say <tool_call>{LOOK}</tool_call> then.", []),
        ),
        (
            "hermes",
            f"<think><tool_call>{LOOK}</tool_call></think><tool_call>{LOOK}</tool_call>",
            ("", f"<tool_call>{LOOK}</tool_call>", CALLED),
        ),
        # Control tokens have no text of their own, but in arguments.
        ("hermes", "Hi«<|im_start|>»!", ("Hi!", "", [])),
        ("hermes", "{" + LOOK[1:-3] + '«<|eot|>»"}}', ("", "", [("look", '{"city": "Bonn<|eot|>"}')])),
        ("harmony", "«<|channel|>»final«<|message|>»<|end|>", ("<|end|>", "", [])),
        ("harmony", "Hello there", ("Hello there", "", [])),
    ],
)
def test_what_is_meant(format: str, text: str, expected: tuple[str | None, str, Calls]) -> None:
    content = text if expected[0] is None else expected[0]
    assert read(format, text) == (content, *expected[1:])


@pytest.mark.parametrize(
    ("value", "parameter", "written"),
    [
        ("5", "city", '"5"'),
        ("5", "days", "5"),
        ("12345678901234567890", "days", "12345678901234567890"),
        ("soon", "days", '"soon"'),
        ("1", "unit", '"1"'),
        ("null", "label", "null"),
        ("nullify", "label", '"nullify"'),
        ("None", "size", "null"),
        ("[1, {}]", "other", "[1, {}]"),
        ("[1, {}", "other", '"[1, {}"'),
        ("\n a</parameter> \n\n", "text", '"\\n a</parameter> \\n\\n"'),
    ],
)
def test_raw_values_become_what_the_schema_says(value: str, parameter: str, written: str) -> None:
    name = "save" if parameter in ("text", "label", "size") else "look"
    call = f"<function={name}>\n<parameter={parameter}>\n{value}\n</parameter>\n</function>"
    assert read("qwen3-xml", f"<tool_call>\n{call}\n</tool_call>") == (
        "",
        "",
        [(name, f'{{"{parameter}": {written}}}')],
    )


@pytest.mark.parametrize(
    ("format", "prompt", "is_open"),
    [
        ("hermes", THINKING, True),
        ("hermes", THINKING + "\n</think>\n\n", False),
        ("hermes", "What is <think>?<|im_start|>assistant\n", False),
        ("gemma4", "<|turn>model\n<|channel>thought\n", True),
        ("harmony", "<|start|>assistant", True),
        ("harmony", "<|start|>assistant<|channel|>final<|message|>", False),
    ],
)
def test_the_prompt_tells_whether_reasoning_has_begun(format: str, prompt: str, is_open: bool) -> None:
    reader = answer_reader(BY_NAME[format], TOOLS, prompt=prompt)
    assert reader.in_reasoning is is_open


def test_a_call_that_is_cut_off_keeps_what_was_passed_on_of_it() -> None:
    cut = f"Hi\n<tool_call>{LOOK[:-3]}"
    assert read("hermes", cut) == ("Hi", "", [("look", '{"city": "Bonn')])
    assert read("hermes", cut, hold=100) == ("Hi", "", [])


def test_arguments_come_as_soon_as_they_are_there() -> None:
    reader = answer_reader(BY_NAME["qwen3-xml"], TOOLS)
    assert not reader.feed("<tool_call><function=save><parameter=text>\n", 0).tool_calls
    (first,) = reader.feed("a", 0).tool_calls
    (second,) = reader.feed('"b', 0).tool_calls
    assert (first.name, first.arguments, second.name, second.arguments) == (
        "save",
        '{"text": "a',
        None,
        '\\"b',
    )


def test_ids_that_a_model_writes_are_kept() -> None:
    kimi = answer_reader(BY_NAME["kimi-k2"], TOOLS)
    text = "<|tool_call_begin|>functions.look:3<|tool_call_argument_begin|>{}<|tool_call_end|>"
    assert [(call.id, call.name) for call in kimi.feed(text, 0).tool_calls] == [("functions.look:3", "look")]
    mistral = answer_reader(BY_NAME["mistral-v11"], TOOLS, controls=())
    delta = mistral.feed("[TOOL_CALLS]look[CALL_ID]abcdefghi[ARGS]{}", 0)
    assert [(call.id, call.name) for call in delta.tool_calls] == [("abcdefghi", "look")]


@pytest.mark.parametrize(
    ("format", "head", "unit"),
    [
        ("hermes", "x", "\n"),
        ("hermes", "x", "<tool_cal"),
        ("hermes", "", " "),
        ("hermes", "<think>", f"<tool_call>{LOOK}</tool_call> no\n"),
        ("json", '{"arguments": {"text": "', "x"),
        ("qwen3-xml", "<tool_call><function=save><parameter=text>", "</parameter> "),
        ("glm", "<tool_call>save<arg_key>text</arg_key><arg_value>", "</tool_call>"),
        ("deepseek-v3.1", DEEPSEEK.section_begin, "noise"),
        ("harmony", "", "x "),
    ],
)
def test_time_grows_with_the_length_only(format: str, head: str, unit: str) -> None:
    """Ten times the text takes ten times as long, not a hundred times."""

    def seconds(length: int) -> float:
        reader = answer_reader(BY_NAME[format], TOOLS)
        text = head + unit * (length // len(unit))
        began = time.thread_time()
        for char in text:
            reader.feed(char, 0)
        reader.finish()
        return time.thread_time() - began

    assert seconds(10_000) < 40 * max(seconds(1_000), 0.001)


@pytest.mark.parametrize("cut", ["\n</tool", "\n</tool_call>\n<tool_c", "\n", "\n</tool_call>\n"])
def test_a_mark_behind_a_call_that_is_cut_off_is_no_content(cut: str) -> None:
    assert read("hermes", f"<tool_call>\n{LOOK}{cut}") == ("", "", CALLED)
