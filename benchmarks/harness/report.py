"""From measurements to a table: medians, the peer to compare with, targets, Markdown. Nothing is run here."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

SUBJECT = "enginehouse"
BEGIN, END = "<!-- results -->", "<!-- /results -->"

Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True)
class Goal:
    """What a line has to reach: ``bound`` for ours divided by the peer's, or for our own value."""

    kind: Literal["ratio", "value"]
    bound: float

    def text(self, better: Better) -> str:
        sign = "≥" if better == "higher" else "≤"
        return f"{sign} {times(self.bound)}" if self.kind == "ratio" else f"{sign} {number(self.bound)}"


@dataclass(frozen=True, slots=True)
class Metric:
    """A line of the table. ``key`` names the value in a measurement.

    ``peer`` is the one that it is compared with; "": the best of them.
    """

    key: str
    title: str
    unit: str
    better: Better
    target: Goal | None = None
    peer: str = ""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one run of a case on one server gave, or why it gave nothing."""

    case: str
    server: str
    values: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One metric of one case: medians over the repetitions. ``peer_name`` says which peer."""

    case: str
    metric: Metric
    ours: float | None
    peer: float | None = None
    peer_name: str = ""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours divided by the peer's."""
        if self.ours is None or not self.peer:
            return None
        return self.ours / self.peer

    @property
    def verdict(self) -> str:
        """``met`` or ``missed``, "" without a target, "no peer" without the peer that it needs."""
        target = self.metric.target
        if target is None:
            return ""
        if self.ours is None:
            return "missed"
        reached = self.ratio if target.kind == "ratio" else self.ours
        if reached is None:
            return "no peer"
        good = reached >= target.bound if self.metric.better == "higher" else reached <= target.bound
        return "met" if good and not self.note else "missed"


def lines(case: str, metrics: Sequence[Metric], measurements: Iterable[Measurement]) -> list[Line]:
    """The lines of ``case``. Of several peers, the one with the better first metric counts for all
    that name none."""
    runs: dict[str, list[Measurement]] = {}
    for measurement in measurements:
        if measurement.case == case:
            runs.setdefault(measurement.server, []).append(measurement)
    medians = {server: median_values(group) for server, group in runs.items()}
    ours = medians.pop(SUBJECT, {})
    best = best_peer(metrics[0], medians)
    note = failures(runs.get(SUBJECT, []))
    found = []
    for metric in metrics:
        name = metric.peer or best
        theirs = medians.get(name, {}).get(metric.key)
        found.append(Line(case, metric, ours.get(metric.key), theirs, "" if theirs is None else name, note))
    return found


def median_values(group: Sequence[Measurement]) -> dict[str, float]:
    """The median of each value over the runs that have it."""
    keys = dict.fromkeys(key for measurement in group for key in measurement.values)
    return {key: statistics.median(m.values[key] for m in group if key in m.values) for key in keys}


def best_peer(metric: Metric, peers: Mapping[str, Mapping[str, float]]) -> str:
    """The name of the peer that does best in ``metric``; "" if none has it."""
    having = {name: values[metric.key] for name, values in peers.items() if metric.key in values}
    if not having:
        return ""
    choose = max if metric.better == "higher" else min
    return choose(having, key=lambda name: having[name])


def failures(group: Sequence[Measurement]) -> str:
    """What went wrong in these runs, in one line; "" if nothing did. A run with failed requests counts."""
    errors = [measurement.error for measurement in group if measurement.error]
    failed = sum(int(measurement.values.get("errors", 0)) for measurement in group)
    if failed:
        errors.append(f"{failed} requests failed")
    return "; ".join(dict.fromkeys(" ".join(error.split()) for error in errors))


def solve_cost(short: tuple[float, float], long: tuple[float, float]) -> tuple[float, float]:
    """Cost of a request and of a token, from ``(tokens, cost)`` of answers of two lengths.

    Raises ValueError if the lengths are equal.
    """
    if short[0] == long[0]:
        raise ValueError("two different lengths are needed to tell a request's cost from a token's")
    per_token = (long[1] - short[1]) / (long[0] - short[0])
    return short[1] - per_token * short[0], per_token


def number(value: float | None) -> str:
    """Three significant digits or more, with thousands separated; a dash for None."""
    if value is None:
        return "-"
    if value and abs(value) < 0.995:
        return f"{value:.3f}"
    return f"{value:,.{0 if abs(value) >= 1000 else 1 if abs(value) >= 99.5 else 2}f}"


def times(ratio: float) -> str:
    """A ratio, with enough digits to tell a thirtieth from a fortieth."""
    return f"{ratio:.{2 if ratio >= 0.1 else 3}f}x"


def table(rows: Iterable[Line]) -> str:
    """The lines as a Markdown table."""
    head = ["Scenario", "What", "Ours", "Peer", "Ratio", "Target", "Result"]
    out = [f"| {' | '.join(head)} |", "|---|---|--:|--:|--:|--:|---|"]
    out += [f"| {' | '.join(_cells(line))} |" for line in rows]
    return "\n".join(out)


def _cells(line: Line) -> list[str]:
    metric = line.metric
    what = f"{metric.title}, {metric.unit}" if metric.unit else metric.title
    peer = f"{number(line.peer)} ({line.peer_name})" if line.peer is not None else "-"
    ratio = "-" if line.ratio is None else times(line.ratio)
    target = metric.target.text(metric.better) if metric.target else ""
    result = ": ".join(filter(None, (line.verdict, line.note))).replace("|", "\\|")
    return [line.case, what, number(line.ours), peer, ratio, target, result]


def with_results(page: str, results: str) -> str:
    """``page`` with what is between its markers replaced. Raises ValueError without markers."""
    start = page.index(BEGIN) + len(BEGIN)
    end = page.index(END, start)
    return f"{page[:start]}\n{results}\n{page[end:]}"
