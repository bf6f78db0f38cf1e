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
from app.pull_requests import Usefulness, named_pull, usefulness
from app.settings import Settings
from engines import selection
from engines.errors import EngineError
from engines.models.pull.puller import PulledModel, Puller, PullProgress, PullRefused, SourceName

# The server's code for what could not be served there.
CANNOT_RUN = "cannot_run"


class Hub(StrEnum):
    HUGGINGFACE = "huggingface"
    MODELSCOPE = "modelscope"


def pull(
    name: Annotated[
        str,
        typer.Argument(
            help="A model of the catalog, org/name or org/name:QUANT of a hub, or a page's address there."
        ),
    ],
    source: Annotated[
        Hub | None, typer.Option(help="The hub. Default: the catalog's, else huggingface.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Files to take, such as '*q4_k_m*.gguf'. May be repeated."),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask about what no engine here can run.")
    ] = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Download a model, or go on with a download that was stopped.

    A running server does it, and has the model at once; without one this command does, into
    MODEL_BASE_PATH.
    """
    settings = load_settings()
    server = find_server(settings, url, api_key, manages=True)
    wish = Wish(name, None if source is None else source.value, revision, tuple(include or ()), force=yes)
    with errors_told(server), _interruptible():
        try:
            pulled = _pull(settings, server, wish)
        except _Refused as refused:
            err.print(str(refused), style="yellow", markup=False)
            typer.confirm("Download it all the same?", abort=True, err=True)
            pulled = _pull(settings, server, dataclasses.replace(wish, force=True))
    out.print(_summary(name, pulled), markup=False)


@dataclasses.dataclass(frozen=True)
class Wish:
    """What is to be pulled; ``force``: also what could not be served here."""

    name: str
    source: SourceName | None
    revision: str | None
    include: tuple[str, ...]
    force: bool


class _Refused(Exception):
    """The model could not be served here."""


def _pull(settings: Settings, server: ServerAddress, wish: Wish) -> dict[str, Any]:
    with Bar() as bar:
        try:
            return _by_server(server, wish, bar)
        except httpx.ConnectError:
            if not server.is_default:
                raise
            return _by_us(settings, wish, bar)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C loses nothing: say so."""
    try:
        yield
    except KeyboardInterrupt:
        err.print("Stopped. What arrived is kept: the next pull goes on from there.", style="yellow")
        raise typer.Exit(INTERRUPTED) from None


def _by_server(server: ServerAddress, wish: Wish, bar: Bar) -> dict[str, Any]:
    said = {"source": wish.source, "revision": wish.revision, "include": wish.include, "force": wish.force}
    body = {"model_name": wish.name, **{key: value for key, value in said.items() if value}}
    event: dict[str, Any] = {}
    try:
        with server.client() as http:
            for event in client.stream_pull(http, body):
                _show(event, wish.name, bar)
    except client.ServerError as error:
        if error.code == CANNOT_RUN:
            raise _Refused(str(error)) from None
        raise
    return event


def _by_us(settings: Settings, wish: Wish, bar: Bar) -> dict[str, Any]:
    """Without a server; the same events."""

    def tell(progress: PullProgress) -> None:
        _show(dataclasses.asdict(progress), wish.name, bar)

    try:
        wanted = named_pull(
            open_library(settings),
            wish.name,
            wish.source,
            wish.revision,
            wish.include,
            only_for=None if wish.force else _useful(settings),
        )
        pulled: PulledModel = asyncio.run(Puller().pull(wanted.request, tell))
    except PullRefused as refused:
        raise _Refused(refused.message) from None
    except EngineError as error:
        raise fail(error.message) from None
    return {"model": wanted.name, **dataclasses.asdict(pulled)}


def _useful(settings: Settings) -> Usefulness:
    from app import configuration

    facts = selection.detect()
    budget = configuration.manager_limits(settings, facts).budget
    return usefulness(facts, settings.inference_engine, budget)


def _show(event: dict[str, Any], name: str, bar: Bar) -> None:
    if event["status"] not in ("done", "success"):
        bar.show(download_step(name, event))


def _summary(name: str, pulled: dict[str, Any]) -> str:
    count = len(pulled["files"])
    files = pulled["files"][0] if count == 1 else f"{count} files"
    return f"Pulled {name}: {files}, {size_text(pulled['size'])}, in {pulled['path']}"
