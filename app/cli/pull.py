"""``enginehouse pull``: download a model."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any

import httpx
import typer

from app.cli import client
from app.cli.common import INTERRUPTED, err, fail, load_settings, open_library, out
from app.cli.progress import Bar, download_step
from app.cli.server import ApiKey, ServerAddress, Url, errors_told, find_server
from app.cli.text import size_text
from app.pull_requests import named_pull
from app.settings import Settings
from engines.errors import EngineError
from engines.models.pull.puller import PulledModel, Puller, PullProgress, SourceName


class Hub(StrEnum):
    HUGGINGFACE = "huggingface"
    MODELSCOPE = "modelscope"


def pull(
    name: Annotated[str, typer.Argument(help="A model of the catalog, or org/name of a hub.")],
    source: Annotated[
        Hub | None, typer.Option(help="The hub. Default: the catalog's, else huggingface.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Files to take, such as '*q4_k_m*.gguf'. May be repeated."),
    ] = None,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Download a model, or go on with a download that was stopped.

    A running server does it, and has the model at once; without one this command does, into
    MODEL_BASE_PATH.
    """
    settings = load_settings()
    server = find_server(settings, url, api_key, manages=True)
    hub: SourceName | None = None if source is None else source.value
    with errors_told(server), _interruptible(), Bar() as bar:
        try:
            pulled = _by_server(server, name, hub, revision, include or [], bar)
        except httpx.ConnectError:
            if not server.is_default:
                raise
            pulled = _by_us(settings, name, hub, revision, tuple(include or ()), bar)
    out.print(_summary(name, pulled), markup=False)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C loses nothing: say so."""
    try:
        yield
    except KeyboardInterrupt:
        err.print("Stopped. What arrived is kept: the next pull goes on from there.", style="yellow")
        raise typer.Exit(INTERRUPTED) from None


def _by_server(
    server: ServerAddress,
    name: str,
    hub: SourceName | None,
    revision: str | None,
    include: list[str],
    bar: Bar,
) -> dict[str, Any]:
    wish = {"source": hub, "revision": revision, "include": include or None}
    body = {"model_name": name, **{key: value for key, value in wish.items() if value is not None}}
    event: dict[str, Any] = {}
    with server.client() as http:
        for event in client.stream_pull(http, body):
            _show(event, name, bar)
    return event


def _by_us(
    settings: Settings,
    name: str,
    hub: SourceName | None,
    revision: str | None,
    include: tuple[str, ...],
    bar: Bar,
) -> dict[str, Any]:
    """Without a server; the same events."""

    def tell(progress: PullProgress) -> None:
        _show(dataclasses.asdict(progress), name, bar)

    try:
        wanted = named_pull(open_library(settings), name, hub, revision, include)
        pulled: PulledModel = asyncio.run(Puller().pull(wanted.request, tell))
    except EngineError as error:
        raise fail(error.message) from None
    return {"model": wanted.name, **dataclasses.asdict(pulled)}


def _show(event: dict[str, Any], name: str, bar: Bar) -> None:
    if event["status"] not in ("done", "success"):
        bar.show(download_step(name, event))


def _summary(name: str, pulled: dict[str, Any]) -> str:
    count = len(pulled["files"])
    files = pulled["files"][0] if count == 1 else f"{count} files"
    return f"Pulled {name}: {files}, {size_text(pulled['size'])}, in {pulled['path']}"
