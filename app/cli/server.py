"""The server that a command talks to: where it is, its key, and what goes wrong on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import httpx
import typer

from app.cli import client
from app.cli.client import ServerError
from app.cli.common import auth_headers, default_key, fail, is_loopback
from app.first_steps import command, public_url
from app.settings import Settings

Url = Annotated[str | None, typer.Option(help="The server. Default: this machine's.")]
ApiKey = Annotated[
    str | None, typer.Option(help="Default, for this machine: one of ADMIN_API_KEYS, else of API_KEYS.")
]

_KEY_HINTS = {
    401: "give a key with --api-key, or set API_KEYS as the server has it",
    403: "give one of the server's ADMIN_API_KEYS with --api-key",
}


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """``url`` is without /v1. ``is_default``: nobody asked for this one, so it need not be there."""

    url: str
    key: str | None
    is_default: bool = False

    def client(self) -> httpx.Client:
        return httpx.Client(timeout=client.TIMEOUT, **self._options())

    def async_client(self) -> httpx.AsyncClient:
        """For requests that take as long as they take."""
        return httpx.AsyncClient(timeout=httpx.Timeout(10.0, read=None), **self._options())

    def _options(self) -> dict[str, Any]:
        # A proxy named in the environment is for other machines.
        proxies = not is_loopback(self.url)
        return {"base_url": self.url, "headers": auth_headers(self.key), "trust_env": proxies}


def find_server(
    settings: Settings, url: str | None, api_key: str | None, *, manages: bool = False
) -> ServerAddress:
    """The server at ``url``, or else this machine's. ``manages``: the key is to be an administrator's."""
    base = (url or public_url(settings)).rstrip("/").removesuffix("/v1")
    if "://" not in base:
        base = f"http://{base}"
    key = api_key or default_key(settings, base, manages=manages)
    return ServerAddress(base, key, is_default=url is None)


@contextmanager
def errors_told(server: ServerAddress) -> Iterator[None]:
    """Say what went wrong with ``server``, and exit with status 1."""
    try:
        yield
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise fail(broken(server.url, error)) from None
    except ServerError as error:
        raise fail(told(error)) from None


def told(error: ServerError) -> str:
    """The server's own message, and how to get further where a key is missing."""
    hint = _KEY_HINTS.get(error.status or 0)
    return f"{error}: {hint}" if hint else str(error)


def broken(url: str, error: httpx.TransportError | httpx.InvalidURL) -> str:
    """Why there is no connection to ``url``, and what to do about it."""
    if isinstance(error, httpx.ConnectError):
        advice = (
            f"start one with {command()} serve" if is_loopback(url) else "is --url right, and does it run?"
        )
        return f"No server answers at {url}: {advice}"
    return f"The connection to {url} broke: {error or type(error).__name__}"
