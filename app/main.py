"""Builds the ASGI app."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app import __version__, errors, middleware
from app.house import House
from app.routers import chat, completions, docs, models, system
from app.settings import Settings
from app.telemetry import logs

DESCRIPTION = """An OpenAI-compatible inference server. Point any OpenAI client at `/v1`."""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The app with everything wired; models begin to load when it starts.

    Raises `ModelFileNotFound` if there is nothing to serve.
    """
    settings = settings or Settings()
    logs.configure(settings.log_level, settings.log_format)
    house = House(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        _announce(settings, house)
        await house.start()
        try:
            yield
        finally:
            await house.stop()

    app = FastAPI(
        title="Enginehouse",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.house = house
    errors.install(app)
    middleware.install(app, settings)
    docs.install(app)
    for router in (chat.router, completions.router, models.router, system.router):
        app.include_router(router)
    return app


def _announce(settings: Settings, house: House) -> None:
    log = logs.get_logger("app")
    log.info("starting", version=__version__, model=house.model.name, path=str(house.model.path))
    if not settings.api_keys:
        log.warning("the API is open to everyone who can reach it: set API_KEYS to require a key")
