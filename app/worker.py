"""A worker: the server with one model, in a process of its own (``python -m app.worker``).

`balancer.workers.worker` starts it, on a socket that it is given. Its stdin is its life line, its stdout
tells the parent how far it is, and its stderr is its log; `balancer.workers.protocol` says what crosses.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any, NoReturn

import uvicorn
from fastapi import APIRouter, FastAPI, Request

from app.configuration import WorkerModel
from app.main import create_app
from app.server import Server
from app.settings import Settings
from app.telemetry import logs
from app.uvicorn_options import end_well_on_sigterm, run_to_end, uvicorn_options
from balancer.workers.ports import LOOPBACK
from balancer.workers.protocol import (
    STATUS_PATH,
    Message,
    Start,
    WorkerSpec,
    failed_message,
    progress_message,
    ready_message,
)
from engines.base import EngineStats, HasMetrics, Health
from engines.errors import EngineError, ModelLoadError
from engines.lifecycle.states import LoadOptions, ModelState
from engines.models.catalog import AdapterEntry, CatalogError

Send = Callable[[Message], None]

_PR_SET_PDEATHSIG = 1
# How often the parent is told how far the load is, in seconds.
_PROGRESS_SECONDS = 0.1

router = APIRouter(include_in_schema=False)


def main() -> None:
    """Serve until SIGTERM, or until the parent is gone."""
    send = take_stdout()
    end_with_parent_at_once()
    end_well_on_sigterm()
    line = sys.stdin.readline()
    if not line:
        sys.exit("app.worker is started by the server: run `enginehouse serve`")
    start = Start.from_line(line)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    listener = socket.socket(fileno=start.listener)
    listener.set_inheritable(False)
    try:
        app = create_worker_app(start.spec, send)
    except (EngineError, CatalogError) as error:
        fail(send, error if isinstance(error, EngineError) else ModelLoadError(str(error)))
    gc.collect()
    gc.freeze()  # as in `create_only_app`
    settings: Settings = app.state.server.settings
    server = uvicorn.Server(uvicorn.Config(app, **uvicorn_options(settings)))
    sys.exit(run_to_end(server, [listener]))


def create_worker_app(spec: WorkerSpec, send: Send) -> FastAPI:
    """The app for one model; ``send`` gets its messages. Raises `EngineError` and `CatalogError`."""
    options = LoadOptions(**spec.options)
    adapters = [AdapterEntry(**each) for each in spec.adapters]
    model = WorkerModel(spec.model, spec.path, options, adapters)
    app = create_app(worker_settings(spec), worker_model=model)
    app.include_router(router)
    server: Server = app.state.server
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
        async with inner(app) as state:
            telling = asyncio.create_task(tell(server, options, send))
            try:
                yield state
            finally:
                telling.cancel()

    app.router.lifespan_context = lifespan
    return app


def worker_settings(spec: WorkerSpec) -> Settings:
    """The settings of ``spec``, and those that make a server a worker. The parent has read ``.env``."""
    fixed = {
        "inference_mode": "single",
        "max_concurrent_models": 1,
        "instance_kind": "local",
        "auto_scaling": False,
        "upstreams": "",
        "default_model": spec.model,
        "keep_alive": "-1",
        "host": LOOPBACK,
        "port": spec.port,
        "workers": 1,
        "log_format": "json",
        "api_keys": frozenset({spec.key}),
        "admin_api_keys": frozenset(),
        "rate_limit_rpm": 0,
        # Its key cannot be guessed, and its parent is not to be kept out by others of this machine.
        "rate_limit_wrong_keys": 0,
        "trusted_proxies": frozenset(),
        "allowed_hosts": frozenset(),
        "cors_origins": frozenset(),
    }
    return Settings(_env_file=None, **{**spec.settings, **fixed})


@router.get(STATUS_PATH)
async def worker_status(request: Request) -> dict[str, Any]:
    """Health and figures of the worker, for the process that started it. O(1)."""
    server: Server = request.app.state.server
    name = server.default.name
    engine, status = server.manager.resident(name), server.manager.status(name)
    health = Health(False, f"{status.state}: {status.detail}") if engine is None else await engine.health()
    stats = EngineStats() if engine is None else engine.stats()
    return {"ok": health.ok, "detail": health.detail, "stats": asdict(stats), "metrics": _metrics(engine)}


def _metrics(engine: object) -> dict[str, float]:
    return dict(engine.metrics()) if isinstance(engine, HasMetrics) else {}


async def tell(server: Server, options: LoadOptions, send: Send) -> None:
    """Report the load to the parent; end the process if it fails, or if the engine does later."""
    name = server.default.name
    events = server.manager.events.subscribe()
    progress = asyncio.create_task(_tell_progress(server, name, send))
    try:
        # Pinned: how long it stays is the parent's to decide, whatever the catalog and requests say.
        loaded = await server.manager.load(name, options, pin=True)
    except EngineError as error:
        fail(send, error)
    finally:
        progress.cancel()
    assert loaded.info is not None
    send(ready_message(loaded.info))
    async for event in events:
        if event.state is ModelState.FAILED:
            # A fresh process is a surer cure than another engine beside the remains of this one.
            fail(send, EngineError(event.detail))


async def _tell_progress(server: Server, name: str, send: Send) -> None:
    told = None
    while True:
        status = server.manager.status(name)
        if (status.phase, status.progress) != told and status.state is ModelState.LOADING:
            told = status.phase, status.progress
            send(progress_message(*told))
        await asyncio.sleep(_PROGRESS_SECONDS)


def fail(send: Send, error: EngineError) -> NoReturn:
    """Say why, and end the process."""
    send(failed_message(error))
    logs.flush()
    os._exit(1)


def take_stdout() -> Send:
    """Keep stdout for messages; what libraries print there goes to stderr."""
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(message: Message) -> None:
        messages.write(json.dumps(message, default=str) + "\n")
        messages.flush()

    return send


def end_with_parent_at_once() -> None:
    """On Linux, have the kernel kill this process when its parent dies, even while it is stopped."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_with_stdin() -> None:
    # Not by way of sys.stdin: at its end the interpreter wants that to itself, and aborts if it cannot.
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
