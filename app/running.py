"""How uvicorn runs the app, be it the server or one of its instances."""

from __future__ import annotations

import signal
from typing import Any, NoReturn

from app.settings import Settings


def uvicorn_options(settings: Settings) -> dict[str, Any]:
    """Keyword arguments for `uvicorn.Config`. Logs are the application's own."""
    return {
        "http": "httptools",
        "loop": "auto",
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "timeout_graceful_shutdown": int(settings.shutdown_grace),
    }


def end_well_on_sigterm() -> None:
    """uvicorn raises the signal again once it has shut down; to have been told to end is no failure."""
    signal.signal(signal.SIGTERM, _end)


def _end(signum: int, frame: object) -> NoReturn:
    raise SystemExit(0)
