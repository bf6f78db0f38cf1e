"""``enginehouse chat``: talk to a running server."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import httpx
import typer
from rich.text import Text

from app.cli import client
from app.cli.client import ServerError
from app.cli.common import err, load_settings
from app.cli.follow import loading_shown
from app.cli.server import Url, broken, errors_told, find_server, told

HELP = "/reset forgets the conversation, /system TEXT sets the system prompt, /exit (or Ctrl-D) leaves."
# The code of the answer while a model is being loaded.
LOADING = "model_loading"
RETRY_SECONDS = 1.0


@dataclass(slots=True)
class ChatSession:
    """The messages so far, and the options of the next request."""

    model: str
    system: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    turns: list[dict[str, str]] = field(default_factory=list)

    def request(self, question: str) -> dict[str, Any]:
        """The body that asks ``question`` after everything said so far."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        messages = [*system, *self.turns, {"role": "user", "content": question}]
        return {"model": self.model, "messages": messages, "stream": True, **self.options}

    def remember(self, question: str, answer: str) -> None:
        """Keep a turn. A question without answer is not kept: roles have to alternate."""
        if answer:
            self.turns.append({"role": "user", "content": question})
            self.turns.append({"role": "assistant", "content": answer})


def chat(
    url: Url = None,
    model: Annotated[
        str | None, typer.Option(help="Any model of the server. Default: one that is loaded, else the first.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    api_key: Annotated[str | None, typer.Option(help="Default: one of API_KEYS, for this machine.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="0: always the likeliest.")] = None,
) -> None:
    """Chat with a running server; without a terminal, answer each line of standard input."""
    server = find_server(load_settings(), url, api_key)
    given = {"max_tokens": max_tokens, "temperature": temperature}
    options = {name: value for name, value in given.items() if value is not None}
    with errors_told(server), server.client() as http:
        talk = ChatSession(model or client.first_model(http), system, options)
        if _is_interactive():
            _converse(http, talk)
        else:
            _answer_lines(http, talk)


def _is_interactive() -> bool:
    return sys.stdin.isatty()


def _answer_lines(http: httpx.Client, talk: ChatSession) -> None:
    for line in sys.stdin:
        if question := line.strip():
            talk.remember(question, _say(_ask(http, talk.request(question))))


def _converse(http: httpx.Client, talk: ChatSession) -> None:
    if importlib.util.find_spec("readline"):
        importlib.import_module("readline")  # gives input() line editing and history
    err.print(Text(talk.model, "bold") + Text(f". {HELP}"))
    while (line := _read()) is not None:
        if line.startswith("/"):
            if not _command(talk, line):
                return
        elif line:
            _turn(http, talk, line)


def _read() -> str | None:
    """The next line; None at the end of input, and after Ctrl-C twice in a row."""
    for _ in range(2):
        try:
            return input("> ").strip()
        except KeyboardInterrupt:
            print()
            err.print("Ctrl-C again, Ctrl-D or /exit leaves.", style="dim")
        except EOFError:
            print()
            return None
    return None


def _command(talk: ChatSession, line: str) -> bool:
    """Carry out a slash command; False means leave."""
    name, _, argument = line.partition(" ")
    match name:
        case "/exit" | "/quit":
            return False
        case "/reset":
            talk.turns.clear()
            err.print("The conversation is forgotten.", style="dim")
        case "/system":
            talk.system = argument.strip() or None
            err.print("The system prompt is set." if talk.system else "No system prompt.", style="dim")
        case _:
            err.print(HELP, style="dim")
    return True


def _turn(http: httpx.Client, talk: ChatSession, question: str) -> None:
    """Ask and print; what goes wrong ends this answer, not the conversation."""
    pieces = _ask(http, talk.request(question))
    try:
        talk.remember(question, _say(pieces))
    except ServerError as error:
        err.print(told(error), style="red", markup=False)
    except httpx.TransportError as error:
        err.print(broken(str(http.base_url), error), style="red", markup=False)


def _ask(http: httpx.Client, request: dict[str, Any]) -> Iterator[str]:
    """The pieces of the answer. While its model is being loaded, that is shown, and asked again for it."""
    pieces: Iterator[str] = iter(())
    first: str | None = None
    with loading_shown(http, request["model"]):
        while first is None:
            pieces = client.stream_chat(http, request)
            try:
                first = next(pieces, "")
            except ServerError as error:
                # The server lets requests wait for a load only so long.
                if error.code != LOADING or not client.is_coming(http, request["model"]):
                    raise
                time.sleep(RETRY_SECONDS)
    yield first
    yield from pieces


def _say(pieces: Iterator[str]) -> str:
    """Print an answer as it comes, and return it. Ctrl-C cuts it short."""
    answer: list[str] = []
    try:
        for piece in pieces:
            answer.append(piece)
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        if not _is_interactive():
            raise
        err.print(" (stopped)", style="dim", end="")
    finally:
        print()
    return "".join(answer)
