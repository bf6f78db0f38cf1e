"""Shared parts of the commands: consoles, settings with readable errors, and where the server is."""

from __future__ import annotations

import logging
import sys
from typing import Annotated
from urllib.parse import urlsplit

import typer
from pydantic import ValidationError
from rich.console import Console

from app import hosts
from app.env_file import EnvFileError
from app.first_steps import public_url
from app.setting_errors import explain
from app.settings import Settings, adopt_hub_variables, read_variables
from engines.machine.platform import Facts
from engines.models.library import Library
from engines.models.model import Model
from engines.selection import EngineChoice

# For other programs lines stay whole, however long.
UNLIMITED = 10_000  # columns

# Without markup: names, paths and addresses may look like it, as [::1] does.
out = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else UNLIMITED)
err = Console(stderr=True, highlight=False, markup=False, width=None if sys.stderr.isatty() else UNLIMITED)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

# What shells report for a command that Ctrl-C ended.
INTERRUPTED = 130

# Commands tell what matters themselves; a server sets up logging of its own.
logging.getLogger("engines").addHandler(logging.NullHandler())


def load_settings() -> Settings:
    """The settings; if one is invalid, say which and why, and exit with status 2.

    What `.env` says to hubs' libraries counts from then on.
    """
    try:
        variables = read_variables()
        adopt_hub_variables(variables)
        return Settings()
    except ValidationError as error:
        err.print("Invalid settings:", style="bold red")
        for line in explain(error, Settings.model_fields, variables.settings):
            err.print(f"  {line}", markup=False)
        raise typer.Exit(2) from None
    except EnvFileError as error:
        raise fail(str(error), 2) from None


def fail(message: str, code: int = 1) -> typer.Exit:
    """Print ``message`` to standard error; the caller raises what this returns."""
    err.print(message, style="red", markup=False)
    return typer.Exit(code)


def open_library(settings: Settings) -> Library:
    """The models of a server with these settings; mistakes in its catalog are told."""
    # Imported here: it brings the whole server along, and most commands start faster without.
    from app import configuration

    library = configuration.open_library(settings)
    if library.catalog_error is not None:
        err.print("The catalog has mistakes, and is used without them:", style="yellow")
        err.print(str(library.catalog_error), markup=False)
    return library


def find_model(settings: Settings) -> Model:
    """The model that a server with these settings loads at the start.

    Raises `EngineError`.
    """
    from app import configuration

    return configuration.first_model(open_library(settings), settings)


def engine_for(model: Model, settings: Settings, facts: Facts) -> EngineChoice:
    """The engine that a server with these settings would load ``model`` with."""
    # Imported here: it brings numpy and more along, which most commands do without.
    from engines.lifecycle import loader

    return loader.engine_for(model, settings.inference_engine, facts)


def is_loopback(url: str) -> bool:
    """Whether ``url`` names this machine."""
    return hosts.is_loopback(urlsplit(url).hostname or "")


def default_key(settings: Settings, url: str, *, manages: bool = False) -> str | None:
    """A key of this machine's own server. It is not sent to other machines, whose key it is not.

    ``manages``: for managing models, where the server may ask for an administrator's key.
    """
    own = is_loopback(url) or url == public_url(settings)
    keys = (settings.admin_api_keys if manages else frozenset()) or settings.api_keys
    return min(keys, default=None) if own else None


def auth_headers(api_key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}
