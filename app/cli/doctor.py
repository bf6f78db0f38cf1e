"""``enginehouse doctor``: what this machine can run, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.table import Table
from rich.text import Text

from app.cli.common import engine_for, load_settings, out
from app.cli.text import size_text
from app.setting_notes import notes
from app.settings import Settings, read_variables
from engines import selection
from engines.errors import EngineError
from engines.machine import platform
from engines.models.catalog import load_catalog
from engines.models.library import Library
from engines.models.model import Model


@dataclass(frozen=True, slots=True)
class Findings:
    """The default model and its engine; where one is missing, the reason is there instead."""

    library: Library
    model: Model | str
    choice: selection.EngineChoice

    @property
    def can_serve(self) -> bool:
        return isinstance(self.model, Model) and not self.model.is_absent and self.choice.engine is not None


def doctor() -> None:
    """Show the platform, the engines and why each can or cannot run, and what would be served.

    The exit status is 1 if nothing could be served.
    """
    settings = load_settings()
    facts = selection.detect()
    findings = _look(settings, facts)
    for section in (_facts(facts), _engines(facts, findings.choice), _outcome(settings, facts, findings)):
        out.print(section)
        out.print()
    out.print(_files(settings, findings.library))
    for warning in _warnings(settings, facts):
        out.print(Text("\nWarning: ", "yellow") + Text(warning))
    if not findings.can_serve:
        raise typer.Exit(1)


def _warnings(settings: Settings, facts: platform.Facts) -> Iterator[str]:
    """What is likely not meant so: GPUs that stay idle, and what settings say."""
    for report in selection.explain(facts):
        if report.can_run and (idle := selection.idle_gpu(facts, report.engine)):
            yield idle
    yield from notes(settings, read_variables())


def _look(settings: Settings, facts: platform.Facts) -> Findings:
    from app import configuration

    library = configuration.open_library(settings)
    try:
        model = configuration.first_model(library, settings)
    except EngineError as error:
        return Findings(library, error.message, selection.choose_engine(facts, settings.inference_engine))
    return Findings(library, model, engine_for(model, settings, facts))


def _facts(facts: platform.Facts) -> Table:
    return _grid(*platform.describe(facts))


def _engines(facts: platform.Facts, choice: selection.EngineChoice) -> Table:
    table = Table("Engine", "Can run", "Why", box=None, pad_edge=False)
    for report in selection.explain(facts):
        chosen = report.engine == choice.engine
        can_run = Text("yes", "green") if report.can_run else Text("no", "red")
        table.add_row(Text(report.engine, "bold" if chosen else ""), can_run, report.reason)
    return table


def _outcome(settings: Settings, facts: platform.Facts, findings: Findings) -> Table:
    from app import configuration

    choice = findings.choice
    engine = choice.engine or f"none: {'; '.join(choice.reasons)}"
    limits = configuration.manager_limits(settings, facts)
    at_once = "one model" if limits.max_models == 1 else f"up to {limits.max_models} models"
    return _grid(
        ("Model", f"{_described(findings.model)} (DEFAULT_MODEL={settings.default_model})"),
        ("Engine chosen", f"{engine} (INFERENCE_ENGINE={settings.inference_engine})"),
        ("Loaded at once", f"{at_once} (INFERENCE_MODE={settings.inference_mode})"),
        ("Memory for models", f"{limits.budget} (MAX_MEMORY={settings.max_memory})"),
    )


def _described(model: Model | str) -> str:
    if isinstance(model, str):
        return model
    if model.file is None:
        return f"{model.name}, not on disk: enginehouse pull {model.name}"
    if model.file.format == "none":
        return model.name
    return f"{model.name} ({model.file.format}, {size_text(model.file.size)}, {model.file.source})"


def _files(settings: Settings, library: Library) -> Table:
    from app import configuration

    place = settings.model_base_path / configuration.CATALOG
    if library.catalog_error is not None:
        mistakes = (problem.shown(place.name) for problem in library.catalog_error.problems)
        table = _grid(("Catalog", f"{place} has mistakes:"), *(("", line) for line in mistakes))
    else:
        state = f"{place}, {_counted(library, place)}" if place.is_file() else f"none ({place} would be it)"
        table = _grid(("Catalog", state))
    for skipped in library.skipped:
        table.add_row(Text("Skipped", "yellow"), f"{skipped.path}: {skipped.reason}")
    return table


def _counted(library: Library, place: Path) -> str:
    models = [library.find(entry.name) for entry in load_catalog(place).entries]
    absent = sum(model.is_absent for model in models)
    return f"{len(models)} models" + (f", {absent} of them not on disk" if absent else "")


def _grid(*rows: tuple[str, str]) -> Table:
    table = Table.grid(padding=(0, 2))
    for label, value in rows:
        table.add_row(Text(label, "bold"), value)
    return table
