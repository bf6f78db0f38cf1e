"""What several commands share: consoles, settings with readable errors, and where the server is."""

from __future__ import annotations

from urllib.parse import urlsplit

import typer
from pydantic import ValidationError
from rich.console import Console

from app.settings import Settings
from engines.store import ModelFile

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def load_settings() -> Settings:
    """The settings; if one is invalid, say which and why, and exit with status 2."""
    try:
        return Settings()
    except ValidationError as error:
        err.print("Invalid settings (environment or .env):", style="bold red")
        for line in explain_errors(error):
            err.print(f"  {line}", markup=False)
        raise typer.Exit(2) from None


def explain_errors(error: ValidationError) -> list[str]:
    """One line for each invalid variable: its name and what is wrong with it. Never a key."""
    reasons: dict[str, list[str]] = {}
    values: dict[str, str] = {}
    for item in error.errors(include_url=False):
        name = str(item["loc"][0]).upper()
        reasons.setdefault(name, []).append(item["msg"])
        values[name] = "" if "KEY" in name else f" (it is {item['input']!r})"
    return [f"{name}: {', or '.join(texts)}{values[name]}" for name, texts in reasons.items()]


def fail(message: str, code: int = 1) -> typer.Exit:
    """Print ``message`` to standard error; the caller raises what this returns."""
    err.print(message, style="red", markup=False)
    return typer.Exit(code)


def find_model(settings: Settings) -> ModelFile:
    """The model that a server with these settings serves. Raises `ModelFileNotFound`."""
    # Imported here: it brings the whole server along, and most commands start faster without.
    from app.house import served_model

    return served_model(settings)


def is_loopback(url: str) -> bool:
    """Whether ``url`` names this machine."""
    return urlsplit(url).hostname in LOOPBACK


def public_url(settings: Settings) -> str:
    """Where a server with these settings is reached from this machine."""
    host = "localhost" if settings.host in ("0.0.0.0", "::", "") else settings.host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def default_key(settings: Settings, url: str) -> str | None:
    """A key of this machine's own server. It is not sent to other machines, whose key it is not."""
    own = is_loopback(url) or url == public_url(settings)
    return min(settings.api_keys, default=None) if own else None


def auth_headers(api_key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}
