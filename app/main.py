"""Builds the ASGI app."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app import __version__, error_responses, middleware
from app.configuration import WorkerModel
from app.routers import (
    absent,
    adapters,
    audio,
    batches,
    cluster,
    docs,
    events,
    files,
    home,
    inference,
    lifecycle,
    messages,
    models,
    ollama,
    ollama_models,
    pulls,
    responses,
    system,
)
from app.server import Server
from app.setting_notes import notes
from app.settings import Settings, adopt_hub_variables, read_variables
from app.telemetry import logs
from app.variables import Variables

DESCRIPTION = """An OpenAI-compatible inference server. Point any OpenAI client at `/v1`."""


def create_app(settings: Settings | None = None, worker_model: WorkerModel | None = None) -> FastAPI:
    """The app with everything wired; models begin to load when it starts.

    ``worker_model``: it is a worker, which serves this one model for the server that started it.
    Raises `ModelFileNotFound` if there is nothing to serve, and `CatalogError` for upstreams with mistakes.
    """
    variables = Variables()
    if settings is None:
        variables = read_variables()
        adopt_hub_variables(variables)
        settings = Settings()
    logs.configure(settings.log_level, settings.log_format)
    server = Server(settings, worker_model)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if not server.is_worker:  # whose parent has said it
            _announce(settings, server, variables)
        await server.start()
        try:
            yield
        finally:
            await server.stop()

    app = FastAPI(
        title="Enginehouse",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # `middleware.paths` knows how else a path may be spelt
    )
    app.state.server = server
    error_responses.install(app)
    absent.install(app)
    middleware.install(app, settings, is_worker=worker_model is not None)
    has_ollama = settings.ollama_api and not server.is_worker
    ours = (*inference.BODIES, *responses.BODIES, *messages.BODIES)
    docs.install(app, (*ours, *(ollama.BODIES if has_ollama else ())), server.default.name)
    # Names of models may hold slashes, so routes that take one come after those with a fixed path.
    modules = [inference, audio, responses, messages, files, batches, pulls, adapters]
    modules += [lifecycle, models, events, cluster, system, home]
    for module in [*modules, *((ollama, ollama_models) if has_ollama else ())]:
        # The routes as they are: `include_router` would build each a second time, which takes 35 ms.
        app.router.routes.extend(module.router.routes)
    return app


def create_only_app() -> FastAPI:
    """`create_app` for a process that has no other: what is there by now stays, and searching it for garbage
    again and again would hold the event loop for as long as a large body does."""
    app = create_app()
    gc.collect()
    gc.freeze()
    return app


def _announce(settings: Settings, server: Server, variables: Variables) -> None:
    log = logs.get_logger("app")
    log.info(
        "starting",
        version=__version__,
        mode=settings.inference_mode,
        default_model=server.default.name,
        models=len(server.library.models()),
        memory_budget=str(server.manager.limits.budget),
    )
    for note in notes(settings, variables):
        log.warning(note)
    if settings.manages_locally:
        log.warning("models are managed only from this machine: set ADMIN_API_KEYS, or OPEN_ADMIN=true")
    if idle := server.idle_gpu():
        log.warning(idle)
