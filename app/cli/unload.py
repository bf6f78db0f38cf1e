"""``enginehouse unload``: have a running server free a model."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli import client
from app.cli.common import INTERRUPTED, err, load_settings, out
from app.cli.follow import Request, follow
from app.cli.progress import unload_step
from app.cli.server import ApiKey, Url, errors_told, find_server


def unload(
    name: Annotated[str, typer.Argument(help="A model that is loaded, being loaded or being pulled.")],
    force: Annotated[
        bool, typer.Option("--force", help="Fail what it still serves, and unload it even if it is pinned.")
    ] = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Unload a model from a running server, once the requests that it serves have ended.

    Its files stay; a later request loads it again.
    """
    server = find_server(load_settings(), url, api_key, manages=True)
    path = client.model_path(name) + ("?force=true" if force else "")
    with errors_told(server):
        try:
            report = follow(Request(server, "DELETE", path), name, unload_step)
        except KeyboardInterrupt:
            err.print("It is unloaded all the same, once the requests that it serves have ended.")
            raise typer.Exit(INTERRUPTED) from None
    if report["state"] in ("ready", "loading"):
        out.print(f"{report['id']} was unloaded; a request has it loaded again", markup=False)
    else:
        out.print(f"{report['id']} is unloaded", markup=False)
