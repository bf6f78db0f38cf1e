"""``enginehouse serve``: check what would stop the server, say where it is, and run it."""

from __future__ import annotations

import errno
import json
import os
import shlex
import socket
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
import uvicorn
from rich.markup import escape

from app.cli.common import engine_for, err, fail, find_model, load_settings, public_url
from app.settings import Settings
from app.uvicorn_options import allow_open_files, end_well_on_sigterm, run_server, uvicorn_options
from engines import selection
from engines.errors import EngineError

ROOT = Path(__file__).resolve().parents[2]


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
    print_banner(settings, served)
    allow_open_files()
    end_well_on_sigterm()
    reload = mode is Mode.DEV
    run = uvicorn.run if reload else run_server
    run("app.main:create_only_app", **server_options(settings, reload=reload))


def override(mode: Mode | None, host: str | None, port: int | None, model: str | None) -> None:
    """Put the options into the environment.

    The application is made by a factory that reads the settings itself, with ``--mode dev`` in another
    process: the environment is the one way that reaches both.
    """
    logs = {Mode.DEV: "console", Mode.PROD: "json", None: None}[mode]
    given = {"LOG_FORMAT": logs, "HOST": host, "PORT": port, "DEFAULT_MODEL": model}
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


def check_port(host: str, port: int) -> int:
    """The port to listen on (a free one for 0); exit with status 1 if it cannot be listened on.

    uvicorn would find out only after it has loaded the application.
    """
    try:
        return _bind(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = f"Port {port} is in use. Choose another: enginehouse serve --port {port + 1}"
        else:
            reason = f"Cannot listen on {host} port {port}: {error.strerror or error}"
        raise fail(reason) from None


def _bind(host: str, port: int) -> int:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        if os.name == "posix":  # elsewhere this option lets two servers share a port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        return int(probe.getsockname()[1])


def print_banner(settings: Settings, model: str) -> None:
    """Tell people where the server is and how to try it. On standard error: logs have standard output."""
    url = public_url(settings)
    err.print(f"[bold]Enginehouse[/] serves [bold]{escape(model)}[/] at [link={url}/v1]{url}/v1[/link]")
    err.print(f"  docs     {url}/docs")
    err.print("  chat     enginehouse chat" + ("" if url == "http://localhost:8000" else f" --url {url}"))
    err.print("  or\n")
    err.print(curl_example(url, model, bool(settings.api_keys)), markup=False, soft_wrap=True)
    err.print()


def curl_example(url: str, model: str, with_key: bool) -> str:
    """A command to paste into a shell. It shows no key, only where one goes."""
    key = ' -H "Authorization: Bearer $API_KEY"' if with_key else ""
    messages = [{"role": "user", "content": "Hello!"}]
    request = {"model": model, "messages": messages, "max_tokens": 200, "stream": True}
    body = shlex.quote(json.dumps(request))
    return f"curl -N {url}/v1/chat/completions{key} -H 'Content-Type: application/json' -d {body}"
