"""Choice of the engine for a model on this machine, with the reasons. All but `detect` is pure."""

from __future__ import annotations

from dataclasses import dataclass

from engines.descriptor import EngineDescriptor, Judgement, Suitability
from engines.machine import platform
from engines.machine.platform import Facts
from engines.models.formats import FORMAT_TEXTS, ModelFormat
from engines.registry import AUTO, ENGINES


@dataclass(frozen=True, slots=True)
class EngineReport:
    """Whether an engine can run here; ``reason`` says why, or what is missing and how to get it."""

    engine: str
    can_run: bool
    reason: str


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """The engine to use, or None if the wish cannot be met; ``reasons`` explain it, one line each."""

    engine: str | None
    reasons: tuple[str, ...]


def detect() -> Facts:
    """Look at this machine and at the engines' packages; cheap, and imports none of them."""
    found = [engine.packages() for engine in ENGINES.values()]
    return platform.detect({name: version for each in found for name, version in each.items()})


def explain(facts: Facts) -> tuple[EngineReport, ...]:
    """One report for each engine that "auto" may choose, in the order in which it prefers them here."""
    return tuple(_report(engine, judgement, None) for engine, judgement in _preference(facts))


def idle_gpu(facts: Facts, engine: str) -> str:
    """That the build of ``engine`` leaves a GPU idle, and what to do about it; empty if it does not."""
    return ENGINES[engine].idle_gpu(facts) if engine in ENGINES else ""


def choose_engine(facts: Facts, requested: str = AUTO, format: ModelFormat | None = None) -> EngineChoice:
    """Pick the engine for ``requested``: a name, or "auto" for the most suitable one that can run.

    ``format`` is the model's; None, where no model is known yet, leaves it out of account.
    """
    if requested == AUTO:
        judged = _preference(facts)
    elif requested in ENGINES:
        judged = [(ENGINES[requested], ENGINES[requested].judge(facts))]
    else:
        known = ", ".join(engine.name for engine, _ in _preference(facts))
        return EngineChoice(None, (f"no engine is named {requested}; choose from {known}",))
    reports = [_report(engine, judgement, format) for engine, judgement in judged]
    usable = next((report for report in reports if report.can_run), None)
    if usable is not None:
        return EngineChoice(usable.engine, (f"{usable.engine}: {usable.reason}",))
    return EngineChoice(None, tuple(f"{report.engine}: {report.reason}" for report in reports))


def _preference(facts: Facts) -> list[tuple[EngineDescriptor, Judgement]]:
    """The engines that "auto" may choose, most suitable first, as if all could run and load everything."""
    judged = [(engine, engine.judge(facts)) for engine in ENGINES.values()]
    offered = [each for each in judged if each[1].suitability > Suitability.ON_REQUEST]
    return sorted(offered, key=lambda each: -each[1].suitability)


def _report(engine: EngineDescriptor, judgement: Judgement, format: ModelFormat | None) -> EngineReport:
    if format is not None and engine.formats and format not in engine.formats:
        return EngineReport(engine.name, False, _wrong_format(engine, format))
    return EngineReport(engine.name, judgement.can_run, judgement.reason)


def _wrong_format(engine: EngineDescriptor, format: ModelFormat) -> str:
    loads = " and ".join(FORMAT_TEXTS[each].many for each in sorted(engine.formats))
    others = [other for _, other in sorted(ENGINES.items()) if format in other.formats]
    labels, names, installs = (
        " or ".join(getattr(other, what) for other in others) for what in ("label", "name", "install")
    )
    text = FORMAT_TEXTS[format]
    return (
        f"{engine.label} loads {loads}, and this model is {text.one}, which goes to {labels}: "
        f"use engine auto or {names} (install {installs}), or {text.otherwise}"
    )
