"""``enginehouse serve``: check what would stop the server, and run it."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
import uvicorn

from app import __version__
from app.cli.common import engine_for, err, fail, find_model, load_settings
from app.cli.listening import ALL_OF_IPV6, check_port, listener
from app.settings import Settings
from app.telemetry import logs
from app.uvicorn_options import allow_open_files, end_well_on_sigterm, run_server, uvicorn_options
from engines import selection
from engines.errors import EngineError

ROOT = Path(__file__).resolve().parents[2]
APP = "app.main:create_only_app"


class Mode(StrEnum):
    DEV = "dev"
    PROD = "prod"


def serve(
    mode: Annotated[
        Mode | None,
        typer.Option(help="dev: reload on changes, logs for people. prod: JSON logs. Default: LOG_FORMAT's."),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: HOST.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one. Default: PORT.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="The model to load first: a name, GGUF file or folder. Default: DEFAULT_MODEL."),
    ] = None,
) -> None:
    """Serve the OpenAI API until interrupted."""
    override(mode, host, port, model)
    settings = load_settings()
    served = check_model(settings)
    bound = check_port(settings.host, settings.port)
    if bound != settings.port:
        os.environ["PORT"] = str(bound)
        settings = load_settings()
    if logs.for_people(settings.log_format):  # in JSON, every line is to be one
        err.print(f"Enginehouse {__version__} starts with {served}; Ctrl-C ends it", markup=False)
    allow_open_files()
    end_well_on_sigterm()
    if mode is Mode.DEV:
        uvicorn.run(APP, **server_options(settings, reload=True))
        return
    own = [listener(settings.host, settings.port)] if settings.host == ALL_OF_IPV6 else None
    run_server(APP, own, **server_options(settings, reload=False))


def override(mode: Mode | None, host: str | None, port: int | None, model: str | None) -> None:
    """Put the options into the environment.

    The application is made by a factory that reads the settings itself, with ``--mode dev`` in another
    process: the environment is the one way that reaches both.
    """
    format = {Mode.DEV: "text", Mode.PROD: "json", None: None}[mode]
    given = {"LOG_FORMAT": format, "HOST": host, "PORT": port, "DEFAULT_MODEL": model}
    os.environ.update({name: str(value) for name, value in given.items() if value is not None})


def server_options(settings: Settings, *, reload: bool) -> dict[str, Any]:
    """Keyword arguments for `uvicorn.run`."""
    options = uvicorn_options(settings) | {"factory": True, "host": settings.host, "port": settings.port}
    if reload:
        options |= {
            "reload": True,
            "reload_dirs": [str(ROOT / name) for name in ("app", "balancer", "engines")],
        }
    return options


def check_model(settings: Settings) -> str:
    """The name of the model that is loaded first; exit with status 1 if it is missing or cannot be run."""
    try:
        model = find_model(settings)
    except EngineError as error:
        raise fail(error.message) from None
    if model.is_absent:
        raise fail(f"{model.name} is not on disk. Download it: enginehouse pull {model.name}")
    choice = engine_for(model, settings, selection.detect())
    if choice.engine is None:
        raise fail(f"No engine can run {model.name} here.\n  " + "\n  ".join(choice.reasons))
    return model.name
