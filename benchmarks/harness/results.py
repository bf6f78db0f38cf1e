"""Raw results on disk, one JSON file a scenario, and the report made from them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness.report import Goal, Line, Measurement, Metric, lines, table


@dataclass(frozen=True, slots=True)
class Result:
    """A scenario as measured: its cases' metrics, every single run, and where and when it ran."""

    scenario: str
    date: str
    machine: Mapping[str, str]
    cases: Sequence[tuple[str, Sequence[Metric]]]
    measurements: Sequence[Measurement]

    def lines(self) -> list[Line]:
        return [line for name, metrics in self.cases for line in lines(name, metrics, self.measurements)]


def save(result: Result, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(result), indent=2, ensure_ascii=False)
    (folder / f"{result.scenario}.json").write_text(text + "\n", encoding="utf-8")


def load(path: Path) -> Result:
    """The result that `save` wrote."""
    data = json.loads(path.read_text(encoding="utf-8"))
    cases = [(name, [_metric(item) for item in metrics]) for name, metrics in data["cases"]]
    runs = [Measurement(**item) for item in data["measurements"]]
    return Result(data["scenario"], data["date"], data["machine"], cases, runs)


def _metric(item: dict[str, Any]) -> Metric:
    target = item.pop("target")
    return Metric(**item, target=Goal(**target) if target else None)


def markdown(results: Sequence[Result]) -> str:
    """Machine, dates and versions as a list, then one table. Machines that differ are all listed."""
    facts: dict[str, dict[str, None]] = {"Measured": {}}
    for result in results:
        facts["Measured"][result.date] = None
        for name, value in result.machine.items():
            facts.setdefault(name, {})[value] = None
    head = "\n".join(f"- {name}: {' · '.join(values)}" for name, values in facts.items())
    return f"{head}\n\n{table([line for result in results for line in result.lines()])}"
