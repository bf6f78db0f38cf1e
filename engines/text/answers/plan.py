"""Plans of answers (`engines.base.AnswerPlan`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engines.base import AnswerReader, Structure, ToolUse


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan that is put together: ``make`` gives a reader for each answer."""

    make: Callable[[], AnswerReader]
    tools: ToolUse | None = None
    structure: Structure | None = None

    def reader(self) -> AnswerReader:
        return self.make()
