"""Validation of a batch's input: what is wrong with it is told before any of it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.batches.lines import LineProblem, parse_line, read_lines
from app.errors import to_api_error

# Of more mistakes than this, the first are told.
MOST_ERRORS = 100

CheckModel = Callable[[str], object]
"""Raises `EngineError` for a model that there is not."""


@dataclass(slots=True)
class InputReport:
    """What a batch's input has: so many requests, for these models, and these mistakes."""

    total: int = 0
    models: set[str] = field(default_factory=set)
    errors: list[dict[str, Any]] = field(default_factory=list)

    def note(self, code: str, message: str, line: int | None = None, param: str | None = None) -> None:
        if len(self.errors) < MOST_ERRORS:
            self.errors.append({"code": code, "line": line, "message": message, "param": param})


async def validate(
    path: Path,
    endpoint: str,
    check_model: CheckModel,
    *,
    large: asyncio.Lock,
    most_lines: int,
    most_line_bytes: int,
) -> InputReport:
    """Look at every line of the input at ``path``."""
    report = InputReport()
    seen: dict[str, int] = {}
    unknown: dict[str, LineProblem] = {}
    async with aclosing(read_lines(path, most_line_bytes)) as lines:
        async for raw in lines:
            report.total += 1
            if report.total > most_lines:
                report.note(
                    "too_many_requests", f"A batch may have {most_lines:,} requests at most.", raw.number
                )
                break
            try:
                line = await parse_line(raw, endpoint, large, most_line_bytes)
                if (first := seen.setdefault(line.custom_id, line.number)) != line.number:
                    message = f"`custom_id` {line.custom_id[:64]!r} is that of line {first} already."
                    raise LineProblem("duplicate_custom_id", message, "custom_id")
                model = line.body["model"]
                if model not in report.models and model not in unknown:
                    _look_for(model, check_model, report, unknown)
                if model in unknown:
                    raise unknown[model]
            except LineProblem as problem:
                report.note(problem.code, problem.message, raw.number, problem.param)
    if not report.total:
        report.note("empty_file", "The input file has no requests.")
    return report


def _look_for(
    model: str, check_model: CheckModel, report: InputReport, unknown: dict[str, LineProblem]
) -> None:
    try:
        check_model(model)
        report.models.add(model)
    except Exception as error:
        told = to_api_error(error)
        unknown[model] = LineProblem(told.code, told.message, "body.model")
