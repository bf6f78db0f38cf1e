"""``enginehouse cluster``: the instances and upstreams of a running server."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer

from app.cli import client
from app.cli.cluster_view import keep_watch, show
from app.cli.common import INTERRUPTED, Json, err, fail, load_settings, out
from app.cli.server import ApiKey, Url, errors_told, find_server
from app.cli.text import duration_text
from balancer.policies import Strategy

# A restart lasts as long as the calls that end first, and the load.
PATIENT = httpx.Timeout(10.0, read=None)
STDIN = "-"

Watch = Annotated[bool, typer.Option("--watch", help="Refresh every second, until Ctrl-C.")]

cluster = typer.Typer(name="cluster", help="Look at a server's instances and upstreams, and change them.")
upstreams = typer.Typer(
    name="upstreams",
    help="Other servers that calls may go to, until the server is started again.",
    no_args_is_help=True,
)
cluster.add_typer(upstreams)


class Direction(StrEnum):
    UP = "up"
    DOWN = "down"


class Kind(StrEnum):
    LOCAL = "local"
    PROCESS = "process"


@cluster.callback(invoke_without_command=True)
def _status_by_default(
    context: typer.Context,
    as_json: Json = False,
    watch: Watch = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    command = context.invoked_subcommand
    if command is None:
        status(as_json, watch, url, api_key)
    elif as_json or watch or url or api_key:
        raise fail(f"Options come after the command: enginehouse cluster {command} --url ...", 2)


@cluster.command()
def status(as_json: Json = False, watch: Watch = False, url: Url = None, api_key: ApiKey = None) -> None:
    """Show the instances and the upstreams, and how they fare."""
    server = find_server(load_settings(), url, api_key, manages=True)
    with errors_told(server), server.client() as http:
        if watch:
            keep_watch(http)
        else:
            show(http, as_json=as_json)


@cluster.command()
def scale(
    direction: Annotated[Direction, typer.Argument(help="up: more instances, down: fewer.")],
    count: Annotated[int, typer.Argument(min=1, help="How many come or go.")] = 1,
    model: Annotated[
        str | None, typer.Option(help="Default: the model that the server loads at the start.")
    ] = None,
    kind: Annotated[
        Kind | None, typer.Option(help="Of the new ones. Default: the server's INSTANCE_KIND.")
    ] = None,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Start or stop instances of a model. Those that go finish the calls that they have."""
    wish: dict[str, Any] = {"action": f"scale_{direction}", "count": count, "model": model, "kind": kind}
    scaled = _send("POST", "/v1/cluster/scale", _given(wish), url, api_key)
    out.print(f"{scaled['message']}: {', '.join(scaled['instances'])}", markup=False)


@cluster.command()
def strategy(
    name: Annotated[Strategy, typer.Argument(help="How one of a model's backends is chosen for a call.")],
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Choose how calls are balanced, until the server is started again."""
    chosen = _send("POST", "/v1/cluster/strategy", {"strategy": name}, url, api_key)
    out.print(_sentence(chosen["message"]), markup=False)


@cluster.command()
def restart(
    instance: Annotated[str, typer.Argument(help="An id such as instance_0, or all: one after the other.")],
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is ready again.")] = True,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Start an instance anew, once its calls have ended. The exit status is 1 if it does not come back."""
    try:
        with err.status("restarting"):
            answer = _send(
                "POST", "/v1/cluster/restart", {"instance_id": instance, "wait": wait}, url, api_key
            )
    except KeyboardInterrupt:
        err.print("The restart goes on: enginehouse cluster shows how far it is.")
        raise typer.Exit(INTERRUPTED) from None
    if not wait:
        out.print(f"{_sentence(answer['message'])}: enginehouse cluster shows how far it is", markup=False)
    for each in answer.get("restarted", ()):
        out.print(f"{each['instance_id']} is back after {duration_text(each['seconds'])}", markup=False)


@upstreams.command()
def add(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Base URL, such as http://gpu1:8000/v1.")],
    name: Annotated[str | None, typer.Option(help="Default: its host and port.")] = None,
    key: Annotated[
        str | None, typer.Option(help=f"The upstream's API key; {STDIN}: read it from standard input.")
    ] = None,
    weight: Annotated[float, typer.Option(help="Its share of the calls relative to others.")] = 1.0,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model to send there, as NAME or OURS=THEIRS; repeat it. Default: all it lists."),
    ] = None,
    max_concurrent: Annotated[int | None, typer.Option(min=1, help="The most calls at once.")] = None,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Have calls go to another OpenAI-compatible server too."""
    wish = {
        "url": address,
        "name": name,
        "api_key": sys.stdin.readline().strip() if key == STDIN else key,
        "weight": weight,
        "models": dict(map(_renamed, model)) if model else None,
        "max_concurrent": max_concurrent,
    }
    added = _send("POST", "/v1/cluster/upstreams", _given(wish), url, api_key)
    out.print(f"Added {added['name']}: enginehouse cluster shows how it does", markup=False)


@upstreams.command()
def remove(
    name: Annotated[str, typer.Argument(help="As enginehouse cluster lists it.")],
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Take an upstream out. Calls that it serves go on to their end."""
    removed = _send("DELETE", f"/v1/cluster/upstreams/{quote(name, safe='')}", None, url, api_key)
    left = removed["inflight"]
    out.print(f"Removed {name}{f'; calls that it still serves: {left}' if left else ''}", markup=False)


def _send(method: str, path: str, body: dict[str, Any] | None, url: str | None, api_key: str | None) -> Any:
    """The JSON of the answer; exits with status 1 if it is an error."""
    server = find_server(load_settings(), url, api_key, manages=True)
    with errors_told(server), server.client() as http:
        return client.answer(http.request(method, path, json=body, timeout=PATIENT))


def _given(wish: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in wish.items() if value is not None}


def _renamed(model: str) -> tuple[str, str]:
    ours, equals, theirs = model.partition("=")
    if not ours or (equals and not theirs):
        raise fail(f"--model {model}: give NAME, or OURS=THEIRS")
    return ours, theirs or ours


def _sentence(message: str) -> str:
    return message[:1].upper() + message[1:]
