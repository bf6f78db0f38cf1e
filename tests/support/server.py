"""The whole server under a real uvicorn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import httpx

from app.main import create_app
from app.server import Server
from app.settings import Settings
from app.uvicorn_options import uvicorn_options
from engines.base import Engine
from support.live import LiveApp, wait_until

__all__ = ["LiveServer", "live_server", "wait_until"]


class LiveServer(LiveApp):
    """This project's server until `stop`."""

    @property
    def house(self) -> Server:
        return self.app.state.server  # type: ignore[no-any-return]

    def engine(self, model: str | None = None) -> Engine | None:
        """The engine of ``model``, or of the default one, if it is ready."""
        return cast("Engine | None", self.house.manager.resident(model or self.house.default.name))


@contextmanager
def live_server(**settings: Any) -> Iterator[LiveServer]:
    """A server with these settings, ready to answer. The environment's own settings do not count."""
    resolved = Settings(_env_file=None, **settings)
    options = uvicorn_options(resolved) | {"timeout_graceful_shutdown": 2}
    server = LiveServer(create_app(resolved), **options)
    server.start()
    try:
        with httpx.Client(base_url=server.url) as client:
            wait_until(lambda: client.get("/readyz").status_code == 200, seconds=170)
        yield server
    finally:
        server.stop()
