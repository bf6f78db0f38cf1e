"""The routes of Ollama's API about models (OLLAMA_API)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.dialects.ollama import listing
from app.dialects.ollama.models_schema import (
    OllamaModels,
    OllamaNamed,
    OllamaProgress,
    OllamaPullRequest,
    OllamaRunningModels,
    OllamaShown,
    OllamaShowRequest,
    OllamaStatus,
    OllamaVersion,
)
from app.dialects.ollama.names import found
from app.dialects.ollama.reply import NDJSON
from app.errors import ApiError
from app.operations.removal import NotRemovable, removable, remove
from app.routers.admin import BoundedRoute, admin_only
from app.routers.models import all_cards, report_of
from app.routers.pulls import PullEvents, WholePull
from app.schemas.models import ModelCard, Pulled
from app.schemas.ollama import OLLAMA_ERRORS
from app.server import Server
from app.sse import EventResponse, to_json
from engines.lifecycle.errors import ModelConflict
from engines.lifecycle.states import ModelState
from engines.models.model import Model
from engines.models.pull.puller import PullProgress

router = APIRouter(tags=["Ollama"], route_class=BoundedRoute, responses=OLLAMA_ERRORS)

# The release of Ollama that has what these routes have. Clients ask for a number, and refuse lower ones.
VERSION = "0.13.0"

_PROGRESS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Progress, one JSON object a line; with `stream: false` only the last",
        "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
    }
}


@router.get("/api/version", summary="Tell which version of Ollama's API this is")
async def version() -> OllamaVersion:
    return OllamaVersion(version=VERSION)


@router.get("/api/tags", summary="List the models that requests may name")
async def tags(request: Request) -> OllamaModels:
    server: Server = request.app.state.server
    cards = [card for card in all_cards(server, only_own=False) if card.state is not ModelState.ABSENT]

    def listed() -> OllamaModels:
        return OllamaModels(models=[listing.listed(card, _model(server, card)) for card in cards])

    return await asyncio.to_thread(listed)


@router.get("/api/ps", summary="List the models that are loaded")
async def running(request: Request) -> OllamaRunningModels:
    server: Server = request.app.state.server
    ready = [
        (server.report(model), server.manager.status(model.name), model)
        for model in server.library.models()
        if server.manager.state(model.name) is ModelState.READY
    ]
    told = await asyncio.to_thread(lambda: [listing.running(*each) for each in ready])
    return OllamaRunningModels(models=told)


@router.post("/api/show", summary="Look at one model")
async def show(body: OllamaShowRequest, request: Request) -> OllamaShown:
    server: Server = request.app.state.server
    name, report = found(body.model, lambda each: report_of(server, each))
    return await asyncio.to_thread(listing.shown, report, server.library.get(name))


@router.post(
    "/api/pull",
    summary="Download a model",
    response_model=OllamaStatus,
    responses=_PROGRESS,
    dependencies=[admin_only],
)
async def pull(body: OllamaPullRequest, request: Request) -> Any:
    """A model of the catalog, or what Hugging Face has: `org/name`, `hf.co/org/name:Q4_K_M`. Ollama's own
    registry is not asked."""
    server: Server = request.app.state.server
    watch = server.pulls.start(body.model).watch()
    if body.stream:
        return _LineResponse(_PullLines(watch))
    return WholePull(watch, lambda done: OllamaStatus().model_dump())


@router.delete("/api/delete", summary="Delete a model's files", dependencies=[admin_only])
async def delete(body: OllamaNamed, request: Request) -> Response:
    """What `enginehouse rm` does: only what is in the model folder is deleted, once the model is unloaded."""
    server: Server = request.app.state.server
    _, model = found(body.model, server.library.find)
    try:
        paths = await asyncio.to_thread(removable, server.library, model)
        if server.manager.status(model.name).inflight:
            raise ModelConflict(f"model {model.name} is in use: wait until its requests have ended")
        await server.unload(model, force=False)
        await asyncio.to_thread(remove, paths, server.library.base)
    except NotRemovable as error:
        raise ApiError(400, "invalid_request_error", str(error), "model") from None
    except OSError as error:
        raise ApiError(500, "internal_error", f"not all of {model.name} could be deleted: {error}") from None
    server.library_watch.reload()
    return Response()


def _model(server: Server, card: ModelCard) -> Model | None:
    """The library's model that ``card`` is of, or the one that its adapter belongs to."""
    return server.library.get(card.parent or card.id)


class _PullLines(PullEvents):
    """A watched pull as lines."""

    def _event(self, progress: PullProgress) -> bytes:
        told = listing.progress(self.name, progress.status, progress.completed, progress.total)
        return _line(told)

    def _last(self, done: Pulled) -> bytes:
        return _line(OllamaProgress(status="success"))


class _LineResponse(EventResponse):
    """A stream of JSON objects, one a line; nothing is said while there is nothing new."""

    head: ClassVar[Sequence[tuple[bytes, bytes]]] = ((b"content-type", NDJSON),)
    ping: ClassVar[bytes] = b""

    def _failure(self, error: ApiError) -> bytes:
        return to_json({"error": error.message}) + b"\n"


def _line(told: OllamaProgress) -> bytes:
    return to_json(told.model_dump(exclude_none=True)) + b"\n"
