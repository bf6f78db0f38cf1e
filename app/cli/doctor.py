"""``enginehouse doctor``: what this machine can run, and why."""

from __future__ import annotations

import typer
from rich.markup import escape
from rich.table import Table

from app.cli.common import find_model, load_settings, out
from app.cli.models import size_text
from app.settings import Settings
from engines import platform
from engines.errors import ModelFileNotFound


def doctor() -> None:
    """Show the platform, the engines and why each can or cannot run, and what would be served.

    The exit status is 1 if nothing could be served.
    """
    settings = load_settings()
    facts = platform.detect()
    choice = platform.choose_engine(facts, settings.inference_engine)
    model = _model(settings)
    out.print(_facts(facts))
    out.print()
    out.print(_engines(facts, choice))
    out.print()
    out.print(_outcome(settings, choice, model))
    if choice.engine is None or model is None:
        raise typer.Exit(1)


def _model(settings: Settings) -> str | None:
    """The model that would be served, for people; None where it is not to be found."""
    try:
        model = find_model(settings)
    except ModelFileNotFound:
        return None
    return f"{model.name} ({size_text(model.size)}, {model.source})"


def _facts(facts: platform.Facts) -> Table:
    table = Table.grid(padding=(0, 2))
    for label, value in platform.describe(facts):
        table.add_row(f"[bold]{label}[/]", escape(value))
    return table


def _engines(facts: platform.Facts, choice: platform.EngineChoice) -> Table:
    table = Table("Engine", "Can run", "Why", box=None, pad_edge=False)
    for report in platform.explain(facts):
        chosen = report.engine == choice.engine
        can_run = "[green]yes[/]" if report.can_run else "[red]no[/]"
        table.add_row(
            f"[bold]{report.engine}[/]" if chosen else report.engine, can_run, escape(report.reason)
        )
    return table


def _outcome(settings: Settings, choice: platform.EngineChoice, model: str | None) -> Table:
    table = Table.grid(padding=(0, 2))
    wanted = settings.inference_engine
    engine = choice.engine or f"none: {'; '.join(choice.reasons)}"
    table.add_row("[bold]Engine chosen[/]", escape(f"{engine} (INFERENCE_ENGINE={wanted})"))
    table.add_row(
        "[bold]Model[/]", escape(f"{model or 'not found'} (DEFAULT_MODEL={settings.default_model})")
    )
    return table
