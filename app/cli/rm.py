"""``enginehouse rm``: delete a model's files."""

from __future__ import annotations

from typing import Annotated

import httpx
import typer

from app.cli import client
from app.cli.common import fail, load_settings, open_library, out
from app.cli.server import ApiKey, ServerAddress, errors_told, find_server
from app.cli.text import size_text
from app.operations.removal import NotRemovable, removable, remove, total_size
from engines.errors import ModelFileNotFound


def rm(
    name: Annotated[str, typer.Argument(help="A model as enginehouse models lists it.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Annotated[
        str | None, typer.Option(help="The server on this machine that may have it loaded. Default: its own.")
    ] = None,
    api_key: ApiKey = None,
) -> None:
    """Delete the files of a model in MODEL_BASE_PATH, and what was converted from it.

    A server that runs here unloads it first. A model of the catalog stays there, and can be pulled again.
    """
    settings = load_settings()
    library = open_library(settings)
    try:
        model = library.find(name)
        paths = removable(library, model)
    except ModelFileNotFound as error:
        raise fail(error.message) from None
    except NotRemovable as error:
        raise fail(str(error)) from None
    size = size_text(total_size(paths))
    if not yes:
        out.print("\n".join(map(str, paths)), markup=False)
        typer.confirm(f"Delete {model.name} ({size})?", abort=True)
    server = find_server(settings, url, api_key, manages=True)
    with errors_told(server):
        _release(server, model.name)
    try:
        remove(paths, library.base)
    except OSError as error:
        raise fail(f"Not all of {model.name} could be deleted: {error}") from None
    out.print(f"Deleted {model.name}, {size}", markup=False)


def _release(server: ServerAddress, name: str) -> None:
    """Have the server let go of the model, if there is one and it knows it. Raises `ServerError`."""
    try:
        with server.client() as http:
            reply = http.get(client.status_path(name))
            if reply.status_code == 404:
                return
            if requests := client.answer(reply)["requests"]:
                raise fail(
                    f"{name} is in use: {requests} requests run. Wait, or: enginehouse unload {name} --force"
                )
            client.answer(http.delete(client.model_path(name)))
    except httpx.ConnectError:
        if not server.is_default:
            raise
