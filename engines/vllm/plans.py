"""Plans of answers in declared formats, on vLLM."""

from __future__ import annotations

from dataclasses import replace

from engines.base import Prompt, Structure, ToolUse
from engines.errors import UnsupportedFeature
from engines.text.answer_grammar.plans import AnswerPlans
from engines.text.answers.forced_calls import forced_plan
from engines.text.answers.format import Format
from engines.text.answers.plan import Plan
from engines.vllm.vocabulary import VllmVocabulary


class VllmPlans:
    """Makes a plan for each chat with one model, which answers in ``format``.

    With llguidance a grammar holds the answer to the format, its reasoning included, as vLLM's masks begin
    with the first token. Without, a forced call is JSON, and all else is free.
    """

    def __init__(self, format: Format, vocabulary: VllmVocabulary, *, uses_llguidance: bool) -> None:
        self.tools = True
        self.reasoning = bool(format.reasonings)
        self._uses_llguidance = uses_llguidance
        self._plans = AnswerPlans(format, vocabulary, grammar_has_reasoning=True)

    def plan(self, tools: ToolUse | None, prompt: Prompt, structure: Structure | None) -> Plan | None:
        """None where all text is content."""
        if self._uses_llguidance:
            return self._plans.plan(tools, prompt, structure)
        if tools is not None and tools.is_forced:
            return forced_plan(tools, lambda: None)
        if structure is not None:
            refuse_both(tools)
            return None
        plan = self._plans.plan(tools, prompt, None)
        return None if plan is None else replace(plan, structure=None)


def refuse_both(tools: ToolUse | None) -> None:
    """For a structure beside ``tools`` that the model may call, where it cannot be kept."""
    if tools is not None:
        raise UnsupportedFeature(
            "a structured answer together with tools that the model may call is not supported by this "
            "model's parsers on vLLM: leave one of them out, or force a call with tool_choice",
            param="response_format",
        )
