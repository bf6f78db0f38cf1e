"""Plans of answers: when there is one, and what it demands."""

from __future__ import annotations

from typing import Any

import pytest

from engines.base import Prompt, Structure, ToolUse
from engines.text.answer_grammar.plans import AnswerPlans
from engines.text.answers.choice import choose_format
from engines.text.tokens.special_tokens import SpecialTokens

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
CONTENT = Structure("regex", "[a-z]+")
PLAIN, REASONING = "<tool_call>", "<tool_call><think>"


class Characters:
    """A vocabulary in which each character is a token, and ``<think>`` is one too."""

    special_tokens = SpecialTokens(longest=1)

    def tokenize(self, text: str, *, add_special: bool) -> tuple[int, ...]:
        return (7,) if text == "<think>" else tuple(map(ord, text))


def tool(name: str, **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": PARAMETERS, **fields}}


def grammar(
    template: str, tools: ToolUse | None, content: Structure | None = None, prompt: str = ""
) -> Structure | None:
    plan = AnswerPlans(choose_format(template), Characters()).plan(tools, Prompt((1,), prompt), content)
    assert plan is not None
    assert plan.tools is tools
    return plan.structure


def test_no_plan_where_all_is_content() -> None:
    plans = AnswerPlans(choose_format(PLAIN), Characters())
    assert plans.plan(None, Prompt((1,), ""), CONTENT) is None


@pytest.mark.parametrize(
    ("prompt", "opens"), [("", True), ("<think>\n", False), ("<think>\n\n</think>\n\n", False)]
)
def test_reasoning_may_come_first_where_the_prompt_leaves_it_open(prompt: str, opens: bool) -> None:
    structure = grammar(REASONING, None, CONTENT, prompt)
    assert structure is not None
    assert structure.parts == (("response_format", CONTENT),)
    assert structure.value.startswith("start: (<[7]> )?") is opens
    plans = AnswerPlans(choose_format(REASONING), Characters(), grammar_has_reasoning=True)
    plan = plans.plan(None, Prompt((1,), prompt), CONTENT)
    assert plan is not None
    assert plan.structure is not None
    assert ("<\\/think>/" in plan.structure.value) is not prompt.endswith("</think>\n\n")
    assert "/[a-z]+/" in structure.value
    assert grammar(REASONING, None) is None


def test_tools_that_may_be_called_are_free_unless_strict() -> None:
    loose, strict = tool("loose"), tool("tight", strict=True)
    assert grammar(PLAIN, ToolUse((loose,))) is None
    structure = grammar(PLAIN, ToolUse((loose, strict)))
    assert structure is not None
    assert [(param, part.strict) for param, part in structure.parts] == [
        ("tools.0.function.parameters", False),
        ("tools.1.function.parameters", True),
    ]
    assert '"lenient": true' in structure.value
    assert '"lenient": false' in structure.value


def test_a_forced_call_has_no_content() -> None:
    tools = ToolUse((tool("first"), tool("second")), named="second")
    structure = grammar(PLAIN, tools, CONTENT)
    assert structure is not None
    assert [param for param, _ in structure.parts] == ["tools.1.function.parameters"]
    assert "first" not in structure.value
    assert "[a-z]+" not in structure.value
    both = grammar(PLAIN, ToolUse((tool("one"),)), CONTENT)
    assert both is not None
    assert "[a-z]+" in both.value
    assert "one" in both.value


def test_an_answer_has_one_call_unless_there_may_be_more() -> None:
    one = ToolUse((tool("one"),), required=True, parallel=False)
    many = ToolUse((tool("one"),), required=True)
    single, several = grammar(PLAIN, one), grammar(PLAIN, many)
    assert single is not None
    assert several is not None
    assert "{0,31}" in several.value
    assert "{0,31}" not in single.value


def test_a_structure_is_written_once_for_the_same_tools() -> None:
    plans = AnswerPlans(choose_format(PLAIN), Characters())

    def structure(*names: str, prompt: str = "", **fields: Any) -> Structure | None:
        use = ToolUse(tuple(tool(name) for name in names), **{"required": True, **fields})
        plan = plans.plan(use, Prompt((1,), prompt), None)
        return None if plan is None else plan.structure

    first = structure("a", "b")
    assert structure("a", "b", prompt="another") is first
    assert len({structure("a"), structure("b"), structure("a", "b", named="b"), first}) == 4
    assert structure("a", "b", required=False) is None
    assert structure("a", "b", parallel=False) != first
