"""The ``enginehouse`` command: all commands as one typer application."""

from __future__ import annotations

from typing import Annotated

import typer

from app import __version__
from app.cli import bench, chat, cluster, doctor, load_model, models, ps, pull, rm, serve, unload

cli = typer.Typer(
    name="enginehouse",
    help="One house for every engine: an OpenAI-compatible LLM inference server.",
    no_args_is_help=True,
    add_completion=False,
    # Locals in a traceback would show API keys.
    pretty_exceptions_show_locals=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@cli.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """One house for every engine: an OpenAI-compatible LLM inference server."""


for command in (
    *(serve.serve, chat.chat, ps.ps, load_model.load, unload.unload),
    *(pull.pull, models.models, rm.rm, doctor.doctor, bench.bench),
):
    cli.command()(command)
cli.add_typer(cluster.cluster)
# What Ollama calls them.
cli.command("stop", hidden=True)(unload.unload)
cli.command("list", hidden=True)(models.models)
