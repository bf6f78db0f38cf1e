"""Forms of answers, JSON of a schema or a call of a tool: what is lost or doubled breaks them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engines.base import FinishReason


class Report(BaseModel):
    """The value that answers are held to."""

    model_config = ConfigDict(strict=True, extra="forbid")

    title: str = Field(max_length=40)
    facts: list[Annotated[str, Field(min_length=20, max_length=60)]] = Field(min_length=3, max_length=4)
    stars: int = Field(ge=0, le=10)


_REPORT = Report.model_json_schema()
_FUNCTION = "file_report"
_TOOL = {
    "type": "function",
    "function": {"name": _FUNCTION, "description": "File a report.", "parameters": _REPORT, "strict": True},
}
# More than an answer in any of these forms can have.
MOST_TOKENS = 500


@dataclass(frozen=True, slots=True)
class Form:
    """The form of an answer: what a request asks for it, whether it is a call, and how it ends."""

    fields: Mapping[str, Any]
    is_call: bool
    finish_reason: FinishReason


FORMS = (
    Form(
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "report", "strict": True, "schema": _REPORT},
            }
        },
        is_call=False,
        finish_reason="stop",
    ),
    Form(
        {"tools": [_TOOL], "tool_choice": {"type": "function", "function": {"name": _FUNCTION}}},
        is_call=True,
        finish_reason="stop",
    ),
    Form(
        {"tools": [_TOOL], "tool_choice": "required", "parallel_tool_calls": False},
        is_call=True,
        finish_reason="tool_calls",
    ),
)


@dataclass(slots=True)
class CallsSeen:
    """The calls of one streamed answer, as their deltas came."""

    ids: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    arguments: str = ""

    def take(self, deltas: Sequence[Mapping[str, Any]]) -> str:
        """What ``deltas`` add to the arguments."""
        added = ""
        for delta in deltas:
            function = delta.get("function") or {}
            self.ids += [delta["id"]] if delta.get("id") else []
            self.names += [function["name"]] if function.get("name") else []
            added += function.get("arguments") or ""
        self.arguments += added
        return added


def faults(form: Form, content: str, calls: CallsSeen, finish_reason: str | None) -> list[str]:
    """What is wrong with an answer in ``form``, in words."""
    found = []
    if finish_reason != form.finish_reason:
        found.append(f"it ended with {finish_reason}, not {form.finish_reason}")
    if form.is_call:
        if (calls.names, len(calls.ids)) != ([_FUNCTION], 1):
            found.append(f"the calls {calls.names} with the ids {calls.ids}, not one of {_FUNCTION}")
        if content:
            found.append(f"content beside a call: {content[:80]!r}")
    value = calls.arguments if form.is_call else content
    try:
        Report.model_validate_json(value)
    except ValidationError as error:
        found.append(f"not in its form ({str(error).splitlines()[0]}): {value[:200]!r}")
    return found
