"""Requests that take a while: how their model does meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from app.cli import client
from app.cli.progress import Bar, Step, load_step
from app.cli.server import ServerAddress

POLL_SECONDS = 0.5
# An answer is mostly there before this: then nothing is asked or shown.
CHAT_POLL_SECONDS = 1.0
STATUS_TIMEOUT = 5.0

Describe = Callable[[dict[str, Any]], Step | None]
"""What to show of a model's report; None for nothing."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request to the server that takes a while."""

    server: ServerAddress
    method: str
    path: str
    body: dict[str, Any] | None = None


def follow(request: Request, model: str, describe: Describe) -> Any:
    """Send ``request`` and show how ``model`` does until the answer comes; returns the answer's JSON.

    Raises `ServerError` and `httpx.TransportError`.
    """
    return asyncio.run(_follow(request, model, describe))


async def _follow(request: Request, model: str, describe: Describe) -> Any:
    async with request.server.async_client() as http:
        answer = asyncio.create_task(http.request(request.method, request.path, json=request.body))
        try:
            with Bar() as bar:
                while not (await asyncio.wait((answer,), timeout=POLL_SECONDS))[0]:
                    _show(await http.get(client.status_path(model)), bar, describe)
            return client.answer(answer.result())
        finally:
            answer.cancel()


@contextmanager
def loading_shown(http: httpx.Client, model: str) -> Iterator[None]:
    """While this is open, show how far the loading of ``model`` is, if it is being loaded."""
    over = threading.Event()
    watching = threading.Thread(target=_watch, args=(http, model, over), daemon=True)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()


def _watch(http: httpx.Client, model: str, over: threading.Event) -> None:
    with Bar() as bar:
        while not over.wait(CHAT_POLL_SECONDS):
            try:
                reply = http.get(client.status_path(model), timeout=STATUS_TIMEOUT)
            except httpx.HTTPError:
                return  # who waits for the answer tells what is wrong
            if not _show(reply, bar, load_step):
                return


def _show(reply: httpx.Response, bar: Bar, describe: Describe) -> bool:
    """Show a status; False if the server does not tell of this model."""
    if reply.status_code != 200:
        return False
    step = describe(reply.json())
    if step is None:
        bar.clear()
    else:
        bar.show(step)
    return True
