"""``enginehouse load``: have a running server load a model."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.cli.common import INTERRUPTED, err, load_settings, out
from app.cli.follow import Request, follow
from app.cli.progress import load_step
from app.cli.server import ApiKey, Url, errors_told, find_server
from app.cli.text import size_text
from engines.registry import engine_names


def _known_engine(name: str | None) -> str | None:
    if name is not None and name not in engine_names():
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(map(repr, engine_names()))}.")
    return name


def load(
    name: Annotated[str, typer.Argument(help="A model of the server, or a new name for --path.")],
    engine: Annotated[
        str | None,
        typer.Option(
            metavar=f"[{'|'.join(engine_names())}]",
            callback=_known_engine,
            help="Default: the catalog's, else the server's.",
        ),
    ] = None,
    quantization: Annotated[
        str | None,
        typer.Option(help="Convert it once, such as q4_0 (GGUF) or 4bit (MLX), and keep the result."),
    ] = None,
    context_length: Annotated[int | None, typer.Option(min=1, help="In tokens.")] = None,
    keep_alive: Annotated[
        str | None, typer.Option(help="Unload it when unused for so long: 300, 5m, 1h30m; -1: never.")
    ] = None,
    pin: Annotated[
        bool | None, typer.Option("--pin/--no-pin", help="Never unload it to make room, nor for want of use.")
    ] = None,
    path: Annotated[
        str | None, typer.Option(help="A GGUF file or model folder, in the server's MODEL_BASE_PATH.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is ready.")] = True,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Load a model into a running server; the exit status is 1 if it does not become ready."""
    wish = {
        "model_path": path,
        "engine": engine,
        "quantization": quantization,
        "context_length": context_length,
        "keep_alive": keep_alive,
        "pin": pin,
    }
    body = {"model_name": name, "wait": wait, **{key: each for key, each in wish.items() if each is not None}}
    server = find_server(load_settings(), url, api_key, manages=True)
    with errors_told(server):
        try:
            # Waiting gives the reason where there is no room, which the status does not tell.
            report = follow(Request(server, "POST", "/v1/models/load", body), name, load_step)
        except KeyboardInterrupt:
            err.print("The load goes on: enginehouse ps shows how far it is, enginehouse unload ends it.")
            raise typer.Exit(INTERRUPTED) from None
    out.print(_ready(report) if wait else _accepted(report), markup=False)


def _ready(report: dict[str, Any]) -> str:
    parts = [f"{report['id']} is ready: {report['engine']} on {', '.join(report['devices'])}"]
    parts.append(f"context {report['context_length']:,} tokens")
    if report["memory"]:
        parts.append(size_text(report["memory"]))
    if report["load_seconds"] is not None:
        parts.append(f"loaded in {report['load_seconds']:.1f} s")
    return ", ".join(parts)


def _accepted(accepted: dict[str, Any]) -> str:
    name = accepted["model"]
    if accepted["state"] == "ready":
        return f"{name} is ready"
    return f"The load of {name} has begun: enginehouse ps shows how far it is"
