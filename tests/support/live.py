"""ASGI applications under a real uvicorn, in a thread: streams and aborts need real sockets."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

# Between looks whether it is to end; uvicorn's own are 0.1 s apart, which adds up over hundreds of servers.
TICK_SECONDS = 0.01


class LiveApp:
    """Runs ``app`` from `start` to `stop`; ``url`` is where."""

    def __init__(self, app: Any, **options: Any) -> None:
        self.app = app
        self.listener = socket.create_server(("127.0.0.1", 0))
        # asyncio sets it on sockets that it makes itself; accepted ones inherit it from here.
        self.listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = int(self.listener.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(app, **{"log_config": None, "access_log": False, **options})
        self.server = _Server(config)
        self.loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="live-app")

    def start(self) -> None:
        self._thread.start()
        wait_until(lambda: self.server.started)

    def stop(self) -> None:
        self.server.should_exit = True
        self._thread.join(30)
        self.listener.close()
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
            await self.server.serve(sockets=[self.listener])

        asyncio.run(serve())


class _Server(uvicorn.Server):
    """uvicorn that notices sooner that it is to end."""

    async def main_loop(self) -> None:
        counter = 0
        while not await self.on_tick(counter):
            counter += 1
            await asyncio.sleep(TICK_SECONDS)


@contextmanager
def running(app: Any) -> Iterator[str]:
    """The base URL at which ``app`` answers, without a lifespan, until the block ends."""
    server = LiveApp(app, lifespan="off", ws="none", timeout_graceful_shutdown=1)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> float:
    """Poll until ``condition`` holds; returns the seconds it took and fails after ``seconds``."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, f"not within {seconds} s"
        time.sleep(0.002)
    return time.monotonic() - start
