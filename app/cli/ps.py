"""``enginehouse ps``: the models that a running server has loaded."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Annotated, Any

import httpx
import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from app.cli import client
from app.cli.client import ServerError
from app.cli.common import Json, load_settings, out
from app.cli.server import ApiKey, Url, errors_told, find_server
from app.cli.text import duration_text, size_text

REFRESH_SECONDS = 1.0

Report = dict[str, Any]

# Who owns what the server runs itself.
OWN = "enginehouse"
_AT_REST = frozenset({"absent", "stopped"})
_HEADINGS = ("NAME", "ENGINE", "STATE", "SIZE", "DEVICE", "CONTEXT", "REQUESTS", "UNTIL")


def ps(
    as_json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every second, until Ctrl-C.")] = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """List the models that a running server has loaded, loads, pulls or failed to load."""
    server = find_server(load_settings(), url, api_key, manages=True)
    with errors_told(server), server.client() as http:
        if as_json:
            typer.echo(json.dumps(active(http), indent=2))
        elif watch:
            _keep_watch(http)
        else:
            out.print(_view(active(http)))


def active(http: httpx.Client) -> list[Report]:
    """What there is to know of each model that is not at rest. Raises `ServerError`."""
    names = [
        card["id"]
        for card in client.list_models(http)
        if card.get("state") not in _AT_REST and card.get("owned_by", OWN) == OWN  # else it is elsewhere
    ]
    replies = [http.get(client.status_path(name)) for name in names]
    # A model may have gone since it was listed.
    reports = [client.answer(reply) for reply in replies if reply.status_code != 404]
    if names and not reports:
        raise ServerError("The server does not tell how its models do: it is no Enginehouse")
    return reports


def _keep_watch(http: httpx.Client) -> None:
    try:
        with Live(_view(active(http)), console=out, auto_refresh=False, screen=out.is_terminal) as live:
            while True:
                time.sleep(REFRESH_SECONDS)
                live.update(_view(active(http)), refresh=True)
    except KeyboardInterrupt:
        return


def _view(reports: Sequence[Report]) -> Group | str:
    if not reports:
        return "No model is loaded. A request loads one, and so does: enginehouse load NAME"
    table = Table(box=None, pad_edge=False)
    for heading in _HEADINGS:
        wraps = heading in ("NAME", "STATE")
        table.add_column(heading, no_wrap=not wraps, overflow="fold")
    for report in reports:
        # Text, because a model's name may look like markup.
        table.add_row(*map(Text, _row(report)))
    details = [Text(f"{each['id']}: {each['detail']}", "red") for each in reports if each["detail"]]
    return Group(table, *details)


def _row(report: Report) -> tuple[str, ...]:
    context = report["context_length"]
    return (
        report["id"],
        report["engine"] or "-",
        _state(report),
        size_text(report["memory"]) if report["memory"] else "-",
        ", ".join(report["devices"]) or "-",
        f"{context:,}" if context else "-",
        str(report["requests"]),
        _until(report),
    )


def _state(report: Report) -> str:
    if loading := report["loading"]:
        return f"{loading['phase']} {loading['progress']:.0%}{_left(loading)}"
    download = report["download"]
    if download and download["total"]:
        return f"{download['status']} {download['completed'] / download['total']:.0%}{_left(download)}"
    return str(report["state"])


def _left(progress: dict[str, Any]) -> str:
    eta = progress["eta_seconds"]
    return "" if eta is None else f", {duration_text(eta)} left"


def _until(report: Report) -> str:
    """When it is unloaded if nobody uses it, or tried again if it failed."""
    if report["state"] == "failed":
        retry = report["retry_after"]
        return f"retry in {duration_text(retry)}" if retry else "next request"
    if report["state"] == "downloading":
        return "-"
    if report["pinned"]:
        return "pinned"
    if report["keep_alive"] < 0:
        return "forever"
    expires = report["expires_in"]
    return f"{duration_text(report['keep_alive'])} unused" if expires is None else duration_text(expires)
