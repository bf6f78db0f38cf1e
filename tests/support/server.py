"""A real uvicorn on a free port, in a thread of its own: streams and aborts need real sockets."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from app.main import create_app
from app.server import Server
from app.settings import Settings
from engines.base import Engine


class LiveServer:
    """Runs an app until `stop`; ``url`` is where."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self._socket = socket.create_server(("127.0.0.1", 0))
        # asyncio sets it on sockets that it makes itself; accepted ones inherit it from here.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = int(self._socket.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=2)
        self._server = uvicorn.Server(config)
        self.loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="live-server")

    @property
    def house(self) -> Server:
        return self.app.state.server  # type: ignore[no-any-return]

    def engine(self, model: str | None = None) -> Engine | None:
        """The engine of ``model``, or of the default one, if it is ready."""
        return self.house.manager.resident(model or self.house.default.name)

    def start(self) -> None:
        self._thread.start()
        wait_until(lambda: self._server.started)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        self._socket.close()
        assert not self._thread.is_alive()

    def call(self, function: Callable[[], Any]) -> Any:
        """Run ``function`` on the server's loop."""

        async def run() -> Any:
            return function()

        assert self.loop is not None
        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(10)

    def _run(self) -> None:
        async def serve() -> None:
            self.loop = asyncio.get_running_loop()
            await self._server.serve(sockets=[self._socket])

        asyncio.run(serve())


@contextmanager
def live_server(**settings: Any) -> Iterator[LiveServer]:
    """A server with these settings, ready to answer. The environment's own settings do not count."""
    server = LiveServer(create_app(Settings(_env_file=None, **settings)))
    server.start()
    try:
        wait_until(lambda: httpx.get(f"{server.url}/readyz").status_code == 200, seconds=60)
        yield server
    finally:
        server.stop()


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> float:
    """Poll until ``condition`` holds; returns the seconds it took and fails after ``seconds``."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, f"not within {seconds} s"
        time.sleep(0.002)
    return time.monotonic() - start
